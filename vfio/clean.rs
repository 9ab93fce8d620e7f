// SPDX-License-Identifier: GPL-2.0

//! The resets of a function alone that keep it clean, and their record.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use super::{
    core::CoreDevice,
    function::Function,
    pci::has_virtual_functions,
    record::Reset,
    status::ResetBy, //
};
use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::Relaxed, //
};

impl CoreDevice {
    /// Returns how often the function was woken, modulo 2^32.
    fn resumes(&self) -> u32 {
        // SAFETY: The core device is initialised. The counter can change at any time.
        unsafe { (&raw const (*self.as_raw()).resumes).read_volatile() }
    }

    /// Returns whether the function is a VF of a PF that user space can have.
    fn has_user_pf(&self) -> bool {
        // SAFETY: The core device is initialised. Only registering it sets the field.
        unsafe { !(*self.as_raw()).sriov_pf_core_dev.is_null() }
    }
}

impl Function {
    /// Records that a reset of the function has begun, or that an error was detected.
    pub(crate) fn disturb(&self) {
        self.record().disturb();
        // SAFETY: The core device is initialised. Its user can set the flag at any time.
        unsafe { (&raw mut (*self.core().as_raw()).touched).write_volatile(true) };
    }

    /// Records that the driver begins a reset of the function.
    pub(crate) fn begin_reset(&self) {
        self.flags().was_mapped.store(self.may_be_mapped(), Relaxed);
        self.record().begin();
    }

    /// Returns whether a type1 container may map BARs of the function for the devices in it.
    ///
    /// Once the user of the function has left, no container maps them anew. Without an IOMMU, each
    /// device reaches all others.
    fn may_be_mapped(&self) -> bool {
        // SAFETY: The core device is initialised.
        !self.has_iommu() || unsafe { bindings::vfio_rs_may_be_mapped(self.core().as_raw()) }
    }

    /// Records that the reset has worked, with the function awake since.
    ///
    /// The user of its PF can touch a VF at any time, so that is not recorded.
    pub(super) fn end_reset(&self, reset: Reset) {
        self.note_reset(match reset {
            Reset::Shared => ResetBy::Domain,
            Reset::Alone | Reset::Bare => ResetBy::Function,
        });
        if !self.core().has_user_pf() {
            self.record().end(reset, self.core().resumes());
        }
    }

    /// Puts a function to sleep unless something uses it, so that the next open finds it asleep.
    ///
    /// Called with the claim or the reflck held, and no runtime PM reference of the driver. May
    /// sleep, about 10 ms.
    pub(crate) fn suspend(&self) {
        // SAFETY: The core device is initialised, and so is its PCI device.
        unsafe { bindings::vfio_rs_suspend(self.core().as_raw()) };
        self.check_reach();
    }

    /// The same, with the runtime PM reference of `vfio_rs_wake()` or of a half close.
    fn put_sync(&self) {
        // SAFETY: The callers own the reference.
        unsafe { bindings::vfio_rs_put_sync(self.core().as_raw()) };
        self.check_reach();
    }

    /// Keeps the record of a reset only if the function was out of reach, and is asleep.
    ///
    /// A function answers between its reset and D3hot, and without D3hot, like most VFs, after that
    /// as well. The devices of the last user may then reach it through a container that has mapped
    /// its BARs, and does not drop them at close. iommufd maps no BARs but those of a dma-buf,
    /// which are revoked. Root can reach it through its `resource` files, as it can a function in
    /// D3hot with `setpci`.
    fn check_reach(&self) {
        if self.flags().was_mapped.load(Relaxed) || !self.is_suspended() {
            self.record().invalidate();
        }
    }

    fn is_suspended(&self) -> bool {
        // SAFETY: The core device is initialised, and so is its PCI device.
        unsafe { bindings::vfio_rs_is_suspended(self.core().as_raw()) }
    }

    /// Returns whether a container might reach the idle function during its last reset, and work
    /// may reset it again.
    pub(crate) fn was_exposed(&self) -> bool {
        self.flags().was_mapped.load(Relaxed)
            && self.has_iommu()
            && !self.core().has_user_pf()
            && self.params().background_reset
            && self.can_reset_later()
    }

    /// Returns whether a container may reach the idle function now, or others may, as it is awake.
    pub(crate) fn is_exposed(&self) -> bool {
        self.may_be_mapped() || !self.is_suspended()
    }

    /// Returns whether nothing can have touched the idle function since it was last reset.
    ///
    /// It was woken `wakes` times by the driver since.
    pub(crate) fn is_untouched(&self, wakes: u32) -> bool {
        self.record().is_untouched(self.core().resumes(), wakes)
    }

    /// Returns whether a reset of the function alone has worked.
    pub(crate) fn resets_alone(&self) -> bool {
        self.record().resets_alone()
    }

    /// Returns whether the open of an untouched function can skip its reset.
    ///
    /// User space relies on a reset of the function alone later, which root may have disabled.
    pub(crate) fn can_skip_reset(&self) -> bool {
        self.resets_alone() && self.has_reset()
    }

    /// Returns whether root has disabled the resets of a function that has some.
    pub(crate) fn resets_disabled(&self) -> bool {
        // SAFETY: `self` holds a reference to the device, which is bound.
        !self.has_reset() && unsafe { bindings::vfio_rs_had_reset_method(self.as_raw()) }
    }

    /// Returns whether the kernel knows a reset of the function alone.
    pub(crate) fn has_reset(&self) -> bool {
        // SAFETY: `self` holds a reference to the device. Root can change the methods at any time.
        unsafe { (&raw const (*self.as_raw()).reset_methods[0]).read_volatile() != 0 }
    }

    /// Returns whether work may reset the function, which is idle.
    ///
    /// The IOMMU core refuses to attach the group of a function with ATS during its reset, and a
    /// user that opens it by its group would see that.
    pub(crate) fn can_reset_later(&self) -> bool {
        // SAFETY: `self` holds a reference to the device.
        unsafe { !bindings::vfio_rs_pci_has_ats(self.as_raw()) }
    }

    /// Prepares a close that work finishes. Returns false if the reset must not wait for the work.
    ///
    /// The function does no DMA after that and raises no interrupts. Once the user's domain is
    /// detached, the default domain of the host must block a function that ignores the bus master
    /// bit. May sleep until its requests are completed, 700 ms at most.
    pub(crate) fn begin_half_close(&self) -> bool {
        // SAFETY: The core device is initialised, and its user is about to leave.
        let can_wait = unsafe { bindings::vfio_rs_begin_half_close(self.core().as_raw()) };
        if can_wait {
            self.flags().is_half_closed.store(true, Relaxed);
        }

        can_wait
    }

    /// Resets an idle function alone, by work. It is asleep after that.
    ///
    /// Fails with [`ENOTTY`] if it has no such reset, [`EBUSY`] if it has VFs, [`ENODEV`] if it
    /// does not answer, [`EAGAIN`] if its device lock or that of the bridge is held elsewhere, or
    /// the error of a resume. May sleep, about 100 ms.
    pub(crate) fn reset_alone(&self) -> Result {
        let core = self.core().as_raw();

        if !self.has_reset() {
            return Err(ENOTTY);
        }
        // SAFETY: The core device is initialised, and so is its PCI device.
        to_result(unsafe { bindings::vfio_rs_wake(core) })?;
        self.begin_reset();
        // SAFETY: The device is bound, as remove waits for the work.
        let mut result = to_result(unsafe { bindings::vfio_rs_try_reset_function(self.as_raw()) });
        if matches!(result, Ok(()) | Err(ENODEV)) && !self.answers() {
            result = Err(ENODEV);
        }
        if result.is_ok() {
            self.end_reset(Reset::Alone);
        }
        self.put_sync();

        result
    }

    /// Finishes a close after [`Function::begin_half_close`], by work.
    ///
    /// Returns whether the function is still owed a reset. If not, it is asleep. Without `force`,
    /// fails with [`EAGAIN`] and no side effect if the device lock or that of the bridge is held
    /// elsewhere. May sleep, about 100 ms.
    pub(crate) fn finish_close(&self, force: bool) -> Result<bool> {
        let core = self.core().as_raw();

        if !self.flags().is_half_closed.load(Relaxed) {
            kernel::warn_on!(true);
            return Ok(true);
        }

        // For the status and the log: vfio-pci-core looks for itself.
        self.answers();
        self.begin_reset();
        // SAFETY: vfio-pci-core has asked for this, and the claim keeps others away.
        let needs_reset = unsafe {
            // VFs that were enabled since would not survive it. Enabling them takes 100 ms with the
            // device lock held, which vfio-pci-core only tries. So none appear after this check,
            // unless the thread stalls for as long in between.
            if has_virtual_functions(self.pdev()) {
                bindings::vfio_pci_core_device::set_reset_works_raw(core, false);
            }
            to_result(bindings::vfio_pci_core_finish_disable(core, force))?;
            (*core).needs_reset
        };
        self.flags().is_half_closed.store(false, Relaxed);
        if needs_reset {
            // It may be woken again at once, for the reset of its domain.
            // SAFETY: This is the reference of the half close.
            unsafe { bindings::vfio_rs_put_async(core) };
        } else {
            self.end_reset(Reset::Bare);
            self.put_sync();
        }

        Ok(needs_reset)
    }
}
