// SPDX-License-Identifier: GPL-2.0

//! The device of vfio-pci-core.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// A `struct vfio_pci_core_device`, which vfio core reference-counts.
///
/// # Invariants
///
/// vfio core and vfio-pci-core have initialised it.
#[repr(transparent)]
pub(crate) struct CoreDevice(Opaque<bindings::vfio_pci_core_device>);

impl CoreDevice {
    pub(super) fn as_raw(&self) -> *mut bindings::vfio_pci_core_device {
        self.0.get()
    }
}

// SAFETY: vfio core counts the references to `vdev.device`, and frees the device with the last one.
unsafe impl AlwaysRefCounted for CoreDevice {
    fn inc_ref(&self) {
        // SAFETY: The reference proves that the reference count is not 0.
        unsafe { bindings::get_device(&raw mut (*self.as_raw()).vdev.device) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: By the requirements of this function, the caller owns a reference.
        unsafe { bindings::put_device(&raw mut (*obj.as_ref().as_raw()).vdev.device) };
    }
}

// SAFETY: Any thread can drop the last reference.
unsafe impl Send for CoreDevice {}

// SAFETY: The C code does its own locking.
unsafe impl Sync for CoreDevice {}
