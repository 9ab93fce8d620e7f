// SPDX-License-Identifier: GPL-2.0
/*
 * C helpers, and the module parameters.  The module! macro of the kernel crate
 * supports neither strings nor parameters in sysfs, which users of vfio-pci
 * expect.  All parameters but driver_name and serialize are those of vfio-pci.
 */

#include <linux/device.h>
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>
#include <linux/workqueue.h>

#include "helpers.h"

struct vfio_rs_params vfio_rs_params = {
	.driver_name = "vfio_pci_rs",
};

module_param_string(ids, vfio_rs_params.ids, sizeof(vfio_rs_params.ids), 0);
MODULE_PARM_DESC(ids, "Initial PCI IDs to add to the vfio driver, format is \"vendor:device[:subvendor[:subdevice[:class[:class_mask]]]]\" and multiple comma separated entries can be specified");

module_param_string(driver_name, vfio_rs_params.driver_name,
		    sizeof(vfio_rs_params.driver_name), 0444);
MODULE_PARM_DESC(driver_name, "Name of the PCI driver: vfio_pci_rs (the default), or vfio-pci, for tools that look for that name.  It can be loaded as vfio-pci only while no other driver has the name.");

module_param_string(serialize, vfio_rs_params.serialize,
		    sizeof(vfio_rs_params.serialize), 0444);
MODULE_PARM_DESC(serialize, "PCI IDs of devices whose functions must not be reset at the same time, in the format of ids.  If a slot or bus has such a device, its functions are opened and closed one at a time, as with vfio-pci.");

module_param_named(nointxmask, vfio_rs_params.nointxmask, bool, 0644);
MODULE_PARM_DESC(nointxmask, "Disable support for PCI 2.3 style INTx masking.  If this resolves problems for specific devices, report lspci -vvvxxx to linux-pci@vger.kernel.org so the device can be fixed automatically via the broken_intx_masking flag.");

#ifdef CONFIG_VFIO_PCI_VGA
module_param_named(disable_vga, vfio_rs_params.disable_vga, bool, 0444);
MODULE_PARM_DESC(disable_vga, "Disable VGA resource access through vfio-pci");
#endif

module_param_named(disable_idle_d3, vfio_rs_params.disable_idle_d3, bool, 0644);
MODULE_PARM_DESC(disable_idle_d3, "Disable using the PCI D3 low power state for idle, unused devices");

#ifdef CONFIG_PCI_IOV
module_param_named(enable_sriov, vfio_rs_params.enable_sriov, bool, 0644);
MODULE_PARM_DESC(enable_sriov, "Enable support for SR-IOV configuration.  Enabling SR-IOV on a PF typically requires support of the userspace PF driver, enabling VFs without such support may result in non-functional VFs or PF.");
#endif

module_param_named(disable_denylist, vfio_rs_params.disable_denylist,
		   bool, 0444);
MODULE_PARM_DESC(disable_denylist, "Disable use of device denylist. Disabling the denylist allows binding to devices with known errata that may lead to exploitable stability or security issues when accessed by untrusted users.");

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

void vfio_rs_init_delayed_work(struct delayed_work *dwork, work_func_t func)
{
	INIT_DELAYED_WORK(dwork, func);
}

/* Not while the system is suspended: the devices may not be accessible. */
void vfio_rs_schedule_delayed_work(struct delayed_work *dwork, u32 ms)
{
	mod_delayed_work(system_freezable_wq, dwork, msecs_to_jiffies(ms));
}

/* Keep a timeout that was queued while the work ran. */
void vfio_rs_reschedule_delayed_work(struct delayed_work *dwork, u32 ms)
{
	queue_delayed_work(system_freezable_wq, dwork, msecs_to_jiffies(ms));
}

/*
 * Copies the name of the driver that @pdev is bound to; @own is our driver.
 *
 * A function that is bound to @own or to no driver may be in probe or remove,
 * about to join its reset domain or to leave it.  Then its device lock is held.
 * The lock is only tried, because callers hold locks that nest inside it.  It
 * is not tried for a function of another driver, nor for a VF, which shares no
 * domain: that could make their users fail to take it.
 *
 * Returns 1 if the device is bound, 0 if it is not, -EBUSY if the device lock
 * is held elsewhere.
 */
int vfio_rs_driver_name(struct pci_dev *pdev, const struct device_driver *own,
			char *buf, size_t len)
{
	const struct device_driver *drv;

	/* A driver and its name outlive this as in dev_driver_string(). */
	scoped_guard(rcu) {
		drv = READ_ONCE(pdev->dev.driver);
		if (drv)
			strscpy(buf, drv->name, len);
		if (pdev->is_virtfn || (drv && drv != own))
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

/* Index of "bus" in pci_reset_fn_methods[], the first method through the bridge. */
#define RESET_METHOD_BUS	6

/*
 * Resets a function in probe or remove, whose device lock is held.  The lock of
 * the bridge above nests outside it, so it is only tried.
 *
 * A hotplug interrupt holds the slot's reset_lock, which a slot reset waits for,
 * while it waits for pci_rescan_remove_lock, which a remove through sysfs holds.
 * So a function that only its slot can reset stays as it is.
 */
int vfio_rs_reset_function(struct pci_dev *pdev)
{
	struct pci_dev *bridge = vfio_pci_core_reset_bridge(pdev);
	int ret;

	BUILD_BUG_ON(PCI_NUM_RESET_METHODS != 8);
	if (bridge && pdev->slot && !pci_probe_reset_slot(pdev->slot) &&
	    pdev->reset_methods[0] >= RESET_METHOD_BUS)
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
