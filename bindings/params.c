// SPDX-License-Identifier: GPL-2.0
/*
 * The module parameters.  The module! macro of the kernel crate supports neither
 * strings nor parameters in sysfs, which users of vfio-pci expect.  Those from
 * serialize to strict are ours, the others vfio-pci's.
 */

#include <linux/module.h>
#include <linux/vfio_pci_core.h>

#include "helpers.h"

/* For modprobe, which knows the module by another name. */
MODULE_ALIAS("vfio-pci-nvme");

#ifdef VFIO_PCI_RS_IN_PLACE
/* As vfio-pci has it: tools look for the driver of a function by it. */
MODULE_ALIAS("vfio_pci:v*d*sv*sd*bc*sc*i*");
#endif

struct vfio_rs_params vfio_rs_params = {
	.skip_clean_reset = true,
	.background_reset = true,
};

module_param_string(ids, vfio_rs_params.ids, sizeof(vfio_rs_params.ids), 0);
MODULE_PARM_DESC(ids, "Initial PCI IDs to add to the vfio driver, format is \"vendor:device[:subvendor[:subdevice[:class[:class_mask]]]]\" and multiple comma separated entries can be specified");

module_param_string(serialize, vfio_rs_params.serialize,
		    sizeof(vfio_rs_params.serialize), 0444);
MODULE_PARM_DESC(serialize, "PCI IDs of devices whose functions must not be reset at the same time, in the format of ids.  If a slot or bus has such a device, its functions are opened and closed one at a time, as with vfio-pci.");

module_param_named(skip_clean_reset, vfio_rs_params.skip_clean_reset, bool, 0644);
MODULE_PARM_DESC(skip_clean_reset, "Skip the reset when a function is opened that was reset since its last use, and that nothing can have touched since.");

module_param_named(background_reset, vfio_rs_params.background_reset, bool, 0644);
MODULE_PARM_DESC(background_reset, "Reset a function after close() has returned, and when it is bound.  Its next user waits for that.");

module_param_named(bus_reset, vfio_rs_params.bus_reset, bool, 0644);
MODULE_PARM_DESC(bus_reset, "Reset the slot or bus when its last function is closed, and before its first one is opened, even if the functions can be reset alone.");

module_param_named(strict, vfio_rs_params.strict, bool, 0644);
MODULE_PARM_DESC(strict, "Refuse to open a function that still has the state of its last user and cannot be reset.");

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
