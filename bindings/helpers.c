// SPDX-License-Identifier: GPL-2.0
/*
 * What Rust code cannot call: inline functions and macros, and C on behalf of it.
 * helpers_pci.c has those on PCI functions, this file all others.
 */

#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/iommufd.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-ats.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>
#include <linux/workqueue.h>

#include "helpers.h"

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

static bool is_bound_to_iommufd(struct vfio_pci_core_device *core)
{
#if IS_ENABLED(CONFIG_IOMMUFD)
	return core->vdev.iommufd_device;
#else
	return false;
#endif
}

/*
 * Whether a container may map regions of @core for the devices in it.  A type1
 * without our patch does not know.
 */
bool vfio_rs_may_be_mapped(struct vfio_pci_core_device *core)
{
	bool (*maps_device)(struct device *dev);
	bool is_mapped;

	if (!IS_ENABLED(CONFIG_VFIO_IOMMU_TYPE1))
		return false;

	/* It is in a module that nothing else here needs. */
	maps_device = symbol_get(vfio_iommu_type1_maps_device);
	if (!maps_device)
		return true;

	is_mapped = maps_device(&core->pdev->dev);
	symbol_put(vfio_iommu_type1_maps_device);

	return is_mapped;
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

	if (pci_ats_supported(pdev) && !is_bound_to_iommufd(core))
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

bool vfio_rs_is_suspended(struct vfio_pci_core_device *core)
{
	return pm_runtime_suspended(&core->pdev->dev);
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
