// SPDX-License-Identifier: GPL-2.0

//! Properties of a PCI device that the kernel crate does not have.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use crate::{
    bindings,
    reflck::Address, //
};
use kernel::pci;

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
