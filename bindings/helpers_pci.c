// SPDX-License-Identifier: GPL-2.0
/* As helpers.c, on PCI functions and their drivers. */

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-ats.h>
#include <linux/pm_runtime.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/vfio_pci_core.h>

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
 * Locks the bridge that a reset of @pdev goes through, if any, and returns it.
 * The caller, or a remove that waits for it, can hold a device lock, which
 * nests inside the bridge's.  So that is only tried: -EAGAIN if it is held
 * elsewhere.
 *
 * -ENOTTY if the first method of @pdev resets its slot.  A hotplug interrupt
 * holds the slot's reset_lock, which a slot reset waits for, while it waits for
 * pci_rescan_remove_lock, which a remove through sysfs holds while it waits for
 * a device lock.  So no slot is reset with a device lock held.
 */
static struct pci_dev *vfio_rs_trylock_bridge(struct pci_dev *pdev)
{
	struct pci_dev *bridge = vfio_pci_core_reset_bridge(pdev);

	if (!bridge)
		return NULL;

	if (pdev->slot && !pci_probe_reset_slot(pdev->slot) &&
	    pdev->reset_methods[0] >= VFIO_PCI_RESET_METHOD_BUS)
		return ERR_PTR(-ENOTTY);

	return pci_dev_trylock(bridge) ? bridge : ERR_PTR(-EAGAIN);
}

static void vfio_rs_unlock_bridge(struct pci_dev *bridge)
{
	if (!IS_ERR_OR_NULL(bridge))
		pci_dev_unlock(bridge);
}

DEFINE_FREE(vfio_rs_unlock_bridge, struct pci_dev *, vfio_rs_unlock_bridge(_T))

/* Resets a function in probe or remove, whose device lock is held. */
int vfio_rs_reset_function(struct pci_dev *pdev)
{
	struct pci_dev *bridge __free(vfio_rs_unlock_bridge) =
		vfio_rs_trylock_bridge(pdev);
	int ret;

	if (IS_ERR(bridge))
		return PTR_ERR(bridge);

	/* User space must not access the config space meanwhile. */
	pci_cfg_access_lock(pdev);
	ret = pci_reset_function_locked(pdev);
	pci_cfg_access_unlock(pdev);

	return ret;
}

/*
 * Resets an idle function alone.  -EAGAIN if its lock or the bridge's is held
 * elsewhere, -EBUSY if it has VFs, which would lose their state, -ENODEV if it
 * does not answer, which a reset would wait a minute for.
 */
int vfio_rs_try_reset_function(struct pci_dev *pdev)
{
	struct pci_dev *bridge __free(vfio_rs_unlock_bridge) =
		vfio_rs_trylock_bridge(pdev);
	int ret;

	if (IS_ERR(bridge))
		return PTR_ERR(bridge);

	if (!pci_dev_trylock(pdev))
		return -EAGAIN;

	if (pci_num_vf(pdev))
		ret = -EBUSY;
	else if (!pci_device_is_present(pdev))
		ret = -ENODEV;
	else
		ret = pci_reset_function_locked(pdev);
	pci_dev_unlock(pdev);

	return ret;
}

/* False in no-IOMMU mode: VFIO requires this capability of an IOMMU. */
bool vfio_rs_has_iommu(struct pci_dev *pdev)
{
	return device_iommu_capable(&pdev->dev, IOMMU_CAP_CACHE_COHERENCY);
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
