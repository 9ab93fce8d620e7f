// SPDX-License-Identifier: GPL-2.0

//! Resets of a slot or bus, with all its functions.
//!
//! The only file of `vfio/` that knows the reflck. A reset that hits several functions is sound
//! only while none of them is opened, closed or unbound, and only the reflck can prove that.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use super::{
    function::{
        BoundFunction,
        Function, //
    },
    pci::as_raw,
    record::Reset, //
};
use crate::{
    bindings,
    reflck::Settled, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

impl<'a> BoundFunction<'a> {
    /// Returns a function that is a member of a settled domain. Fails with [`ENODEV`] if it is not.
    ///
    /// A member leaves its domain in remove, which takes the reflck.
    pub(crate) fn of_member(
        function: &'a Function,
        members: &Settled<'a, Function>,
    ) -> Result<Self> {
        if !members.iter().any(|member| core::ptr::eq(member, function)) {
            return Err(ENODEV);
        }

        // SAFETY: It is bound as long as it is a member, and `members` proves that for `'a`.
        Ok(unsafe { Self::new(function.pdev()) })
    }

    /// Resets the slot of the function if its hotplug driver can do that, else the bus.
    ///
    /// Resumes `members` in parallel, saves and restores their config space, and blocks the user's
    /// access to them meanwhile. The reset must affect no other function. Fails with [`EBUSY`] if a
    /// function is being accessed, [`EAGAIN`] if the lock of the bridge or of a function is held
    /// elsewhere, or the error of a resume. Does not allocate, as the close of a function must not
    /// fail. May sleep, about a second.
    pub(crate) fn reset_affected(&self, members: &Settled<'_, Function>) -> Result {
        let devices = Opaque::uninit();

        // SAFETY: `devices` is valid, and does not move.
        unsafe { bindings::vfio_rs_init_list(devices.get()) };
        for member in members.iter() {
            member.begin_reset();
            // SAFETY: The core device is initialised. Only this function links it, with the reflck
            // held, as `members` proves. The second call keeps it awake until its resumes are
            // counted.
            unsafe {
                bindings::vfio_rs_link_device(member.core().as_raw(), devices.get());
                bindings::vfio_rs_keep_awake(member.core().as_raw());
            }
        }

        // SAFETY: `members` proves that its functions are neither opened, closed nor unregistered.
        // This empties the list.
        let result = to_result(unsafe {
            bindings::vfio_pci_core_reset_devices(devices.get(), as_raw(self.pdev()))
        });

        // It has waited for the first function, and ends with this error without an answer.
        let is_over = matches!(result, Ok(()) | Err(ENOTTY));
        for member in members.iter() {
            if is_over && member.answers() && result.is_ok() {
                member.end_reset(Reset::Shared);
            }
            // SAFETY: This pairs with `vfio_rs_keep_awake()`, and lets the function go to sleep.
            unsafe { bindings::vfio_rs_put(member.core().as_raw()) };
        }
        // All at once, which takes as long as one.
        if result.is_ok() {
            members.iter().for_each(Function::suspend);
        }

        result
    }
}
