// SPDX-License-Identifier: GPL-2.0
/* What Rust code cannot call: inline functions and macros, and C on behalf of it. */

#include <linux/device.h>
#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/iommufd.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-ats.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>
#include <linux/workqueue.h>

#include "helpers.h"

bool vfio_rs_pci_is_root_bus(struct pci_dev *pdev)
{
	return pci_is_root_bus(pdev->bus);
}

int vfio_rs_pci_domain_nr(struct pci_dev *pdev)
{
	return pci_domain_nr(pdev->bus);
}

int vfio_rs_pci_num_vf(struct pci_dev *pdev)
{
	return pci_num_vf(pdev);
}

bool vfio_rs_pci_is_unplugged(struct pci_dev *pdev)
{
	return READ_ONCE(pdev->error_state) == pci_channel_io_perm_failure;
}

/* Whether @pdev, which is awake, answers: as vfio_pci_answers() of vfio-pci-core. */
bool vfio_rs_pci_answers(struct pci_dev *pdev)
{
	u32 val;

	pci_read_config_dword(pdev, PCI_COMMAND, &val);

	return !PCI_POSSIBLE_ERROR(val);
}

bool vfio_rs_pci_has_ats(struct pci_dev *pdev)
{
	return pci_ats_supported(pdev);
}

/* Whether the kernel knew a reset of @pdev alone when it found the device. */
bool vfio_rs_had_reset_method(struct pci_dev *pdev)
{
	struct kernfs_node *file;

	file = sysfs_get_dirent(pdev->dev.kobj.sd, "reset_method");
	sysfs_put(file);

	return file;
}

void vfio_rs_init_list(struct list_head *list)
{
	INIT_LIST_HEAD(list);
}

/* Links @core for vfio_pci_core_reset_devices(). */
void vfio_rs_link_device(struct vfio_pci_core_device *core,
			 struct list_head *devices)
{
	list_add_tail(&core->reset_entry, devices);
}

/* On any processor, as users wait for it.  Frozen while the system sleeps. */
static struct workqueue_struct *vfio_rs_workqueue;

int vfio_rs_create_workqueue(void)
{
	vfio_rs_workqueue = alloc_workqueue("vfio_pci_rs",
					    WQ_UNBOUND | WQ_FREEZABLE, 0);

	return vfio_rs_workqueue ? 0 : -ENOMEM;
}

void vfio_rs_destroy_workqueue(void)
{
	destroy_workqueue(vfio_rs_workqueue);
}

void vfio_rs_init_delayed_work(struct delayed_work *dwork, work_func_t func)
{
	INIT_DELAYED_WORK(dwork, func);
}

void vfio_rs_schedule_delayed_work(struct delayed_work *dwork, u32 ms)
{
	mod_delayed_work(vfio_rs_workqueue, dwork, msecs_to_jiffies(ms));
}

/* Keep a timeout that was queued while the work ran. */
void vfio_rs_reschedule_delayed_work(struct delayed_work *dwork, u32 ms)
{
	queue_delayed_work(vfio_rs_workqueue, dwork, msecs_to_jiffies(ms));
}

/* Every driver of the module has this name of it, at this address. */
static const char vfio_rs_module[] = KBUILD_MODNAME;

int vfio_rs_register_driver(struct pci_driver *drv, struct module *module)
{
	return __pci_register_driver(drv, module, vfio_rs_module);
}

/*
 * Copies the name of the driver that @pdev is bound to.
 *
 * A function that is bound to one of ours or to no driver may be in probe or
 * remove, about to join its reset domain or to leave it.  Then its device lock
 * is held.
 * The lock is only tried, because callers hold locks that nest inside it.  It
 * is not tried for a function of another driver, nor for a VF, which shares no
 * domain: that could make their users fail to take it.
 *
 * Returns 1 if the device is bound, 0 if it is not, -EBUSY if the device lock
 * is held elsewhere.
 */
int vfio_rs_driver_name(struct pci_dev *pdev, char *buf, size_t len)
{
	const struct device_driver *drv;

	/* A driver and its name outlive this as in dev_driver_string(). */
	scoped_guard(rcu) {
		drv = READ_ONCE(pdev->dev.driver);
		if (drv)
			strscpy(buf, drv->name, len);
		if (pdev->is_virtfn || (drv && drv->mod_name != vfio_rs_module))
			return drv ? 1 : 0;
	}

	if (!device_trylock(&pdev->dev))
		return -EBUSY;

	drv = pdev->dev.driver;
	if (drv)
		strscpy(buf, drv->name, len);
	device_unlock(&pdev->dev);

	return drv ? 1 : 0;
}

/*
 * Whether only its slot can reset @pdev, by a method that goes through @bridge.
 *
 * A hotplug interrupt holds the slot's reset_lock, which a slot reset waits for,
 * while it waits for pci_rescan_remove_lock, which a remove through sysfs holds
 * while it waits for a device lock.  So no slot is reset with a device lock held.
 */
static bool vfio_rs_resets_by_slot(struct pci_dev *pdev, struct pci_dev *bridge)
{
	return bridge && pdev->slot && !pci_probe_reset_slot(pdev->slot) &&
	       pdev->reset_methods[0] >= VFIO_PCI_RESET_METHOD_BUS;
}

/*
 * Resets a function in probe or remove, whose device lock is held.  The lock of
 * the bridge above nests outside it, so it is only tried.
 */
int vfio_rs_reset_function(struct pci_dev *pdev)
{
	struct pci_dev *bridge = vfio_pci_core_reset_bridge(pdev);
	int ret;

	if (vfio_rs_resets_by_slot(pdev, bridge))
		return -ENOTTY;

	if (bridge && !pci_dev_trylock(bridge))
		return -EAGAIN;

	/* User space must not access the config space meanwhile. */
	pci_cfg_access_lock(pdev);
	ret = pci_reset_function_locked(pdev);
	pci_cfg_access_unlock(pdev);

	if (bridge)
		pci_dev_unlock(bridge);

	return ret;
}

/*
 * Resets an idle function alone.  -EAGAIN if its lock or the bridge's is held
 * elsewhere, -EBUSY if it has VFs, which would lose their state, -ENODEV if it
 * does not answer, which a reset would wait a minute for.
 */
int vfio_rs_try_reset_function(struct pci_dev *pdev)
{
	struct pci_dev *bridge = vfio_pci_core_reset_bridge(pdev);
	int ret;

	if (vfio_rs_resets_by_slot(pdev, bridge))
		return -ENOTTY;

	if (bridge && !pci_dev_trylock(bridge))
		return -EAGAIN;

	ret = -EAGAIN;
	if (pci_dev_trylock(pdev)) {
		if (pci_num_vf(pdev))
			ret = -EBUSY;
		else if (!pci_device_is_present(pdev))
			ret = -ENODEV;
		else
			ret = pci_reset_function_locked(pdev);
		pci_dev_unlock(pdev);
	}

	if (bridge)
		pci_dev_unlock(bridge);

	return ret;
}

bool vfio_rs_is_bound_to_iommufd(struct vfio_pci_core_device *core)
{
#if IS_ENABLED(CONFIG_IOMMUFD)
	return core->vdev.iommufd_device;
#else
	return false;
#endif
}

/*
 * Ends DMA and interrupts of @core, whose user is about to leave it.  Returns
 * whether its reset can follow the detach.
 *
 * The default domain then must block a function that ignores the bus master
 * bit, so it must be one for DMA.  The IOMMU core refuses to attach a function
 * with ATS during its reset: users of iommufd wait for that in the driver, users
 * of a group cannot.  The VFs of a PF do not survive its reset.
 */
bool vfio_rs_begin_half_close(struct vfio_pci_core_device *core)
{
	struct pci_dev *pdev = core->pdev;

	if (!use_dma_iommu(&pdev->dev) || pci_num_vf(pdev))
		return false;

	if (pci_ats_supported(pdev) && !vfio_rs_is_bound_to_iommufd(core))
		return false;

	pci_write_config_word(pdev, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);

	return pci_wait_for_pending_transaction(pdev);
}

/* The runtime PM reference of vfio_pci_core_enable(), or one like it. */
int vfio_rs_wake(struct vfio_pci_core_device *core)
{
	if (core->disable_idle_d3)
		return 0;

	return pm_runtime_resume_and_get(&core->pdev->dev);
}

void vfio_rs_put_sync(struct vfio_pci_core_device *core)
{
	if (!core->disable_idle_d3)
		pm_runtime_put_sync(&core->pdev->dev);
}

/* The same, but does not wait until the device sleeps. */
void vfio_rs_put_async(struct vfio_pci_core_device *core)
{
	if (!core->disable_idle_d3)
		pm_runtime_put(&core->pdev->dev);
}

/* False in no-IOMMU mode: VFIO requires this capability of an IOMMU. */
bool vfio_rs_has_iommu(struct pci_dev *pdev)
{
	return device_iommu_capable(&pdev->dev, IOMMU_CAP_CACHE_COHERENCY);
}

/* Wakes an open device, whose user may have let it sleep. */
int vfio_rs_wake_open(struct vfio_pci_core_device *core)
{
	return pm_runtime_resume_and_get(&core->pdev->dev);
}

/*
 * Returns a memory BAR of @core, which is open, and its length.  Earlier kernels
 * map a BAR when the user first accesses it.
 */
void __iomem *vfio_rs_bar(struct vfio_pci_core_device *core, unsigned int bar,
			  size_t *len)
{
	if (bar >= PCI_STD_NUM_BARS ||
	    !(pci_resource_flags(core->pdev, bar) & IORESOURCE_MEM))
		return IOMEM_ERR_PTR(-EINVAL);

	*len = pci_resource_len(core->pdev, bar);

	return core->barmap[bar] ?: IOMEM_ERR_PTR(-ENODEV);
}

/* Keeps a device awake once it is. */
void vfio_rs_keep_awake(struct vfio_pci_core_device *core)
{
	pm_runtime_get_noresume(&core->pdev->dev);
}

void vfio_rs_put(struct vfio_pci_core_device *core)
{
	pm_runtime_put(&core->pdev->dev);
}

/* Puts a device to sleep if nothing needs it, and waits for that. */
void vfio_rs_suspend(struct vfio_pci_core_device *core)
{
	pm_runtime_suspend(&core->pdev->dev);
}

/*
 * Suspends a device, unless it is needed, that stays awake because it could not
 * be suspended during its reset.  The config space of all devices of that reset
 * is locked until the last one is restored, so wait for that.
 */
void vfio_rs_suspend_later(struct pci_dev *pdev)
{
	pm_schedule_suspend(&pdev->dev, 100);
}

bool vfio_rs_is_suspended(struct vfio_pci_core_device *core)
{
	return pm_runtime_suspended(&core->pdev->dev);
}

bool vfio_rs_is_in_d3hot(struct vfio_pci_core_device *core)
{
	return core->pdev->current_state >= PCI_D3hot;
}

/* Rate limit for messages that user space can trigger: 100 in 5 s. */
bool vfio_rs_log_ratelimited(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, 100);

	return __ratelimit(&limit);
}

/* Adds the regions of Intel graphics; -ENODEV if @core has none. */
int vfio_rs_igd_init(struct vfio_pci_core_device *core)
{
	if (!vfio_pci_is_intel_display(core->pdev))
		return -ENODEV;

	return vfio_pci_igd_init(core);
}

/* Returns the ID of the IOMMU group of @pdev, -ENODEV if it has none. */
int vfio_rs_iommu_group_id(struct pci_dev *pdev)
{
	struct iommu_group *group = iommu_group_get(&pdev->dev);
	int id;

	if (!group)
		return -ENODEV;

	id = iommu_group_id(group);
	iommu_group_put(group);

	return id;
}

/* Returns whether a device of the IOMMU group of @pdev is bound to @ictx. */
bool vfio_rs_iommufd_has_group(struct iommufd_ctx *ictx, struct pci_dev *pdev)
{
	bool has_group = false;
#if IS_ENABLED(CONFIG_IOMMUFD)
	struct iommu_group *group = iommu_group_get(&pdev->dev);

	if (group) {
		has_group = iommufd_ctx_has_group(ictx, group);
		iommu_group_put(group);
	}
#endif
	return has_group;
}

/* Returns whether @core is in one of @groups. */
bool vfio_rs_groups_have_dev(const struct vfio_pci_group_info *groups,
			     struct vfio_pci_core_device *core)
{
	int i;

	for (i = 0; i < groups->count; i++)
		if (vfio_file_has_dev(groups->files[i], &core->vdev))
			return true;

	return false;
}

#if IS_ENABLED(CONFIG_IOMMUFD)
MODULE_IMPORT_NS("IOMMUFD");
#endif
