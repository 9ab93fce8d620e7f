// SPDX-License-Identifier: GPL-2.0

//! The module parameters, as they stand at the time of the call.
//!
//! They are defined in C (`bindings/helpers.c`), those of vfio-pci with the names, types and
//! permissions that they have there.

use crate::bindings;
use kernel::prelude::*;

/// `ids`: the PCI IDs to bind to from the start, separated by commas.
///
/// Can be set when the module is loaded only.
pub(crate) fn ids() -> &'static CStr {
    // SAFETY: The parameter is a static, NUL-terminated array that is not written after the
    // module's init function has begun.
    unsafe { CStr::from_char_ptr(bindings::vfio_rs_param_ids()) }
}

/// `driver_name`: the name that the PCI driver shall have.
///
/// Can be set when the module is loaded only.
pub(crate) fn driver_name() -> &'static CStr {
    // SAFETY: The parameter is a static, NUL-terminated array that is not written after the
    // module's init function has begun.
    unsafe { CStr::from_char_ptr(bindings::vfio_rs_param_driver_name()) }
}

/// `nointxmask`: do not use PCI 2.3 style INTx masking. Can change at any time.
pub(crate) fn nointxmask() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::vfio_rs_param_nointxmask() }
}

/// `disable_vga`: give user space no access to the legacy VGA addresses of a VGA device. Can be set
/// when the module is loaded only, and is always false without `CONFIG_VFIO_PCI_VGA`.
pub(crate) fn disable_vga() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::vfio_rs_param_disable_vga() }
}

/// `disable_idle_d3`: leave unused functions in D0. Can change at any time.
pub(crate) fn disable_idle_d3() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::vfio_rs_param_disable_idle_d3() }
}

/// `enable_sriov`: let user space enable the VFs of a PF. Can change at any time, and is always
/// false without `CONFIG_PCI_IOV`.
pub(crate) fn enable_sriov() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::vfio_rs_param_enable_sriov() }
}

/// `disable_denylist`: bind to functions on the denylist. Can be set when the module is loaded
/// only.
pub(crate) fn disable_denylist() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::vfio_rs_param_disable_denylist() }
}
