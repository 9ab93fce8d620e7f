// SPDX-License-Identifier: GPL-2.0

//! Properties of a PCI device that the kernel crate does not have.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use crate::{
    bindings,
    reflck::Address, //
};
use kernel::{
    fmt,
    pci,
    prelude::*, //
};

pub(super) fn as_raw(pdev: &pci::Device) -> *mut bindings::pci_dev {
    // `pci::Device` is a transparent wrapper of `struct pci_dev`.
    core::ptr::from_ref(pdev).cast_mut().cast()
}

pub(super) fn address(pdev: &pci::Device) -> Address {
    let pdev = as_raw(pdev);
    // SAFETY: The reference proves that the device is valid. It holds a reference to its bus.
    let (segment, bus, devfn) = unsafe {
        (
            bindings::vfio_rs_pci_domain_nr(pdev),
            (*(*pdev).bus).number,
            (*pdev).devfn,
        )
    };

    Address {
        // CAST: Segment numbers are not negative.
        segment: segment as u32,
        bus,
        // CAST: `devfn` has eight bits.
        devfn: devfn as u8,
    }
}

/// Returns whether the device has a header of type 1 or 2.
pub(super) fn is_bridge(pdev: &pci::Device) -> bool {
    // SAFETY: The reference proves that the device is valid. `hdr_type` does not change.
    let hdr_type = unsafe { (*as_raw(pdev)).hdr_type };

    u32::from(hdr_type) != bindings::PCI_HEADER_TYPE_NORMAL
}

/// Returns whether there is no bridge above the device.
pub(super) fn is_on_root_bus(pdev: &pci::Device) -> bool {
    // SAFETY: The reference proves that the device is valid. It holds a reference to its bus.
    unsafe { bindings::vfio_rs_pci_is_root_bus(as_raw(pdev)) }
}

pub(super) fn has_virtual_functions(pdev: &pci::Device) -> bool {
    // SAFETY: The reference proves that the device is valid.
    unsafe { bindings::vfio_rs_pci_num_vf(as_raw(pdev)) > 0 }
}

pub(super) fn iommu_group_id(pdev: &pci::Device) -> Option<u32> {
    // SAFETY: The reference proves that the device is valid.
    let id = unsafe { bindings::vfio_rs_iommu_group_id(as_raw(pdev)) };

    u32::try_from(id).ok()
}

/// The driver that a function is bound to.
pub(crate) enum BoundTo {
    Nothing,
    /// A driver of this name, NUL-terminated.
    Driver([u8; BoundTo::MAX_NAME]),
    /// It is a bridge, which is never bound to us.
    Bridge,
    /// The device lock is held elsewhere, as in probe and remove.
    Changing,
}

impl BoundTo {
    /// The length of a name, with its terminator. A longer name is cut off.
    pub(super) const MAX_NAME: usize = 32;
}

impl fmt::Display for BoundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("is not bound to a driver"),
            Self::Driver(name) => {
                let name = CStr::from_bytes_until_nul(name).map_err(|_| fmt::Error)?;
                f.write_fmt(fmt!("is bound to {name}"))
            }
            Self::Bridge => f.write_str("is a bridge"),
            Self::Changing => f.write_str("is being bound, unbound or reset"),
        }
    }
}
