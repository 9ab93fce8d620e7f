// SPDX-License-Identifier: GPL-2.0

//! Registers of an open device, for its driver.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use super::{
    core::CoreDevice,
    device::EnabledDevice,
    Driver, //
};
use crate::bindings;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_void,
    prelude::*, //
};

/// A memory BAR of a device that stays open for `'a`.
///
/// Runtime PM keeps the function awake meanwhile. The user decides about memory decoding and may
/// have written D3hot to the function, so each access asks vfio-pci-core for both.
///
/// # Invariants
///
/// `io` is mapped for `len` bytes, and there is a runtime PM reference for `self`.
pub(crate) struct Bar<'a> {
    core: &'a CoreDevice,
    io: *mut c_void,
    len: usize,
}

impl<T: Driver> EnabledDevice<'_, T> {
    /// Returns a memory BAR. Wakes the function.
    ///
    /// Fails with [`EINVAL`] if there is no such BAR, [`ENODEV`] if the user cannot have accessed
    /// it, or the error of its mapping or of the resume. May sleep.
    pub(crate) fn bar(&self, index: u32) -> Result<Bar<'_>> {
        let core = &self.0.core;
        let mut len = 0;

        // SAFETY: The device is enabled by the type of `self`, so vfio-pci-core maps its BARs.
        let io = from_err_ptr(unsafe { bindings::vfio_rs_bar(core.as_raw(), index, &mut len) })?;
        // SAFETY: The core device is initialised, and so is its PCI device.
        to_result(unsafe { bindings::vfio_rs_wake_open(core.as_raw()) })?;

        // INVARIANT: The mapping exists until the device is disabled, which takes `self`. There is
        // a reference since the resume.
        Ok(Bar { core, io, len })
    }
}

impl Bar<'_> {
    /// Reads a register of 32 bits.
    ///
    /// Fails with [`EINVAL`] if the BAR has none at `offset`, or [`EIO`] if memory decoding is off
    /// or the function in D3hot. Returns `!0` if the function does not answer. May sleep.
    pub(crate) fn try_read32(&self, offset: usize) -> Result<u32> {
        let io = self.at(offset)?;
        let mut value = 0;

        // SAFETY: The device is enabled, and `at()` returns an address that is mapped.
        to_result(unsafe {
            bindings::vfio_pci_core_ioread32(self.core.as_raw(), true, &mut value, io)
        })?;

        // It comes as the user would read it.
        Ok(u32::from_le(value))
    }

    /// Writes a register of 32 bits. Fails like [`Bar::try_read32`].
    pub(crate) fn try_write32(&self, value: u32, offset: usize) -> Result {
        let io = self.at(offset)?;

        // SAFETY: The device is enabled, and `at()` returns an address that is mapped.
        to_result(unsafe {
            bindings::vfio_pci_core_iowrite32(self.core.as_raw(), true, value.to_le(), io)
        })
    }

    fn at(&self, offset: usize) -> Result<*mut c_void> {
        let end = offset.checked_add(size_of::<u32>()).ok_or(EINVAL)?;
        if end > self.len || offset % size_of::<u32>() != 0 {
            return Err(EINVAL);
        }

        Ok(self.io.wrapping_byte_add(offset))
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, there is a reference.
        unsafe { bindings::vfio_rs_put(self.core.as_raw()) };
    }
}
