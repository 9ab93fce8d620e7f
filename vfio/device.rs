// SPDX-License-Identifier: GPL-2.0

//! A vfio-pci device, and the states in which the driver gets it.
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use super::{
    core::CoreDevice,
    function::Function,
    record::Reset,
    Driver, //
};
use crate::bindings;
use core::mem::MaybeUninit;
use kernel::{
    error::to_result,
    pci,
    prelude::*, //
};

/// A device of a vfio-pci variant driver.
///
/// The reference count of `core` owns the allocation, `data` included. If `data` holds a reference
/// to `core`, the device refers to itself until unregistering drops `data`.
///
/// # Invariants
///
/// References exist only while the PCI device is bound and `data` is initialised: from before the
/// device is registered with vfio until after it is unregistered.
#[repr(C)]
pub(crate) struct Device<T: Driver> {
    /// At offset 0, as its `struct vfio_device` is in it.
    pub(super) core: CoreDevice,
    pub(super) data: MaybeUninit<T::Data>,
}

impl<T: Driver> Device<T> {
    pub(crate) fn data(&self) -> &T::Data {
        // SAFETY: By the type invariants.
        unsafe { self.data.assume_init_ref() }
    }

    /// # Safety
    ///
    /// `vdev` must be the `struct vfio_device` of a `Device<T>` that is registered with vfio for
    /// `'a`.
    pub(super) unsafe fn from_vdev<'a>(vdev: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By the requirements of this function. The `struct vfio_device` is at offset 0.
        unsafe { &*vdev.cast() }
    }

    /// # Safety
    ///
    /// `pdev` must be bound to the driver for `'a`.
    pub(super) unsafe fn of_bound<'a>(pdev: *mut bindings::pci_dev) -> &'a Self {
        // SAFETY: By the requirements of this function; registering has set the driver data.
        unsafe { &*bindings::dev_get_drvdata(&raw mut (*pdev).dev).cast() }
    }

    fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.core.as_raw()
    }

    /// Returns whether the function is still owed a reset since it was last open.
    ///
    /// If so, it cannot be reset alone, or its device lock or that of the bridge was held
    /// elsewhere.
    fn needs_reset(&self) -> bool {
        // SAFETY: By the type invariants. After [`Driver::finish_later`], the work can change it.
        unsafe { (&raw const (*self.core()).needs_reset).read_volatile() }
    }

    pub(super) fn pdev(&self) -> &pci::Device {
        // SAFETY: By the type invariants, the device is bound, so its PCI device exists.
        // `pci::Device` is a transparent wrapper of `struct pci_dev`.
        unsafe { &*(*self.core()).pdev.cast() }
    }
}

/// A device that its first user is opening.
///
/// `dev_set->lock`, which serialises open and close of the device, is held for `'a`.
pub(crate) struct ClosedDevice<'a, T: Driver>(pub(super) &'a Device<T>);

impl<'a, T: Driver> ClosedDevice<'a, T> {
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    /// Resumes, enables and resets the function, and prepares it for its user.
    ///
    /// If `skip_untouched` is set, `VFIO_DEVICE_RESET` does nothing until the function is touched.
    /// Fails with the error of `vfio_pci_core_enable()` or, for Intel graphics, of
    /// `vfio_pci_igd_init()`, and disables the device again. May sleep; a function level reset
    /// takes 100 ms.
    pub(crate) fn enable(self, skip_untouched: bool) -> Result<EnabledDevice<'a, T>> {
        let core = self.0.core();

        // SAFETY: The device is registered and, by the type of `self`, closed.
        to_result(unsafe {
            (*core).skip_untouched = skip_untouched;
            bindings::vfio_pci_core_enable(core)
        })?;
        // SAFETY: It has just been enabled.
        match to_result(unsafe { bindings::vfio_rs_igd_init(core) }) {
            Ok(()) | Err(ENODEV) => (),
            Err(error) => {
                dev_warn!(self.0.pdev(), "Failed to setup Intel IGD regions\n");
                // SAFETY: It has been enabled above, and `dev_set->lock` is held.
                unsafe { bindings::vfio_pci_core_disable(core) };
                return Err(error);
            }
        }
        // SAFETY: It has just been enabled.
        unsafe { bindings::vfio_pci_core_finish_enable(core) };

        Ok(EnabledDevice(self.0))
    }
}

/// A device that user space has open. Dropping it disables it.
///
/// `dev_set->lock`, which serialises open and close of the device, is held for `'a`.
pub(crate) struct EnabledDevice<'a, T: Driver>(pub(super) &'a Device<T>);

impl<'a, T: Driver> EnabledDevice<'a, T> {
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    /// Returns whether enabling the device has reset the function.
    pub(crate) fn was_reset(&self) -> bool {
        // SAFETY: Only open writes the field, under `dev_set->lock`, which is held.
        unsafe { bindings::vfio_pci_core_device::reset_works_raw(self.0.core()) }
    }

    /// Stops the function and restores the state from before it was enabled.
    ///
    /// Resets it if possible, and lets runtime PM put it into D3hot, unless `disable_idle_d3`.
    /// vfio-pci-core calls [`Driver::quiesced`] before it puts the runtime PM reference. May sleep;
    /// a function level reset takes 100 ms.
    pub(crate) fn disable(self) -> DisabledDevice<'a, T> {
        let device = self.0;
        drop(self);

        DisabledDevice(device)
    }
}

impl<T: Driver> Drop for EnabledDevice<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The device is enabled by the type of `self`, and `dev_set->lock` is held.
        unsafe { bindings::vfio_pci_core_close_device(self.0.core().cast()) };
    }
}

/// The proof that a device has been disabled.
pub(crate) struct DisabledDevice<'a, T: Driver>(&'a Device<T>);

impl<T: Driver> DisabledDevice<'_, T> {
    /// Returns whether the function is still owed a reset, unless [`Driver::finish_later`] returned
    /// true.
    pub(crate) fn needs_reset(&self) -> bool {
        self.0.needs_reset()
    }
}

/// A function that vfio-pci-core has stopped, disabled and tried to reset. It is still in D0.
///
/// `dev_set->lock` is held for `'a`.
pub(crate) struct Quiesced<'a, T: Driver>(pub(super) &'a Device<T>);

impl<'a, T: Driver> Quiesced<'a, T> {
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    /// Records the reset of `function`, which is that of the device, unless it is still owed one.
    pub(crate) fn record_reset(&self, function: &Function) {
        if !self.0.needs_reset() {
            function.end_reset(Reset::Bare);
        }
    }
}

/// A device whose user has it open, and keeps it open for `'a`.
pub(crate) struct OpenDevice<'a, T: Driver>(pub(super) &'a Device<T>);

impl<'a, T: Driver> OpenDevice<'a, T> {
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }
}
