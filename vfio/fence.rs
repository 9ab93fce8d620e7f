// SPDX-License-Identifier: GPL-2.0

//! Resets of a slot or bus, with exclusive access to all its functions.
//!
//! The only file of `vfio/` that knows the reflck. A reset that hits several functions is sound
//! only while none of them is opened, closed or unbound, and only the reflck can prove that.

use super::{
    function::{
        BoundFunction,
        Function, //
    },
    pci::as_raw, //
};
use crate::{
    bindings,
    reflck::{
        Owned,
        Settled, //
    }, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::NotThreadSafe, //
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
}

/// The functions of a settled domain, all in D0. Runtime PM may suspend them after the drop.
///
/// Does not allocate, as the close of a function must not fail.
///
/// # Invariants
///
/// Owns a count of the runtime PM usage counter of each function.
pub(crate) struct Resumed<'a>(&'a Settled<'a, Function>);

impl<'a> Resumed<'a> {
    /// Brings all functions to D0, or none if it fails. May sleep.
    pub(crate) fn new(members: &'a Settled<'a, Function>) -> Result<Self> {
        // Resuming takes some 10 ms. Start all of them before waiting for the first.
        for function in members.iter() {
            // SAFETY: `function` holds a reference to the device.
            unsafe { bindings::vfio_rs_pm_runtime_get(function.as_raw()) };
        }
        // INVARIANT: The counts have just been taken.
        let this = Self(members);

        for function in members.iter() {
            // SAFETY: `function` holds a reference to the device.
            to_result(unsafe { bindings::vfio_rs_pm_runtime_resume(function.as_raw()) })?;
        }

        Ok(this)
    }

    /// Resets every function that a slot or bus reset of `function` affects. Saves and restores
    /// their config space.
    ///
    /// Resets the slot if its hotplug driver can do that, else the bus. Fails with [`EAGAIN`] if
    /// the lock of the bridge or of a function is held elsewhere. May sleep, about a second.
    pub(crate) fn reset_affected(&self, function: &BoundFunction<'_>) -> Result {
        // SAFETY: The reference proves that the device is valid.
        to_result(unsafe { bindings::pci_reset_bus(as_raw(function.pdev())) })
    }
}

impl Drop for Resumed<'_> {
    fn drop(&mut self) {
        for function in self.0.iter() {
            // By the type invariants, there is a count to put.
            //
            // SAFETY: `function` holds a reference to the device.
            unsafe { bindings::vfio_rs_pm_runtime_put(function.as_raw()) };
        }
    }
}

/// Blocks user access to all functions of a domain: no BAR is mapped, and every access waits.
///
/// Dropping it lets users in again, to the last function first.
pub(crate) struct Fences<'a>(KVec<Fence<'a>>);

impl<'a> Fences<'a> {
    /// Fences all functions, or none if it fails.
    ///
    /// Only tries to take the `memory_lock` of each, and keeps it. Fails with [`EBUSY`] if one is
    /// held elsewhere. May sleep.
    pub(crate) fn new(owned: &'a Owned<'_, Function>) -> Result<Self> {
        let mut this = Self(KVec::with_capacity(owned.len(), GFP_KERNEL)?);

        for function in owned.iter() {
            // SAFETY: The core device is initialised.
            to_result(unsafe { bindings::vfio_pci_core_fence(function.core().as_raw()) })?;
            // INVARIANT: It has just been fenced. The borrow of `owned` keeps the function from
            // being opened or closed.
            let fence = Fence(function, NotThreadSafe);
            this.0.push(fence, GFP_KERNEL)?;
        }

        Ok(this)
    }

    /// Brings functions to D0 that their user has put into another power state.
    pub(crate) fn set_d0(&self) {
        for Fence(function, _) in &self.0 {
            // SAFETY: The core device is initialised, and `memory_lock` is held.
            unsafe { bindings::vfio_pci_core_fenced_set_d0(function.core().as_raw()) };
        }
    }
}

impl Drop for Fences<'_> {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// Blocks user access to one function.
///
/// # Invariants
///
/// `vfio_pci_core_fence()` has succeeded for the function in this thread, and the function is
/// neither opened nor closed.
struct Fence<'a>(&'a Function, NotThreadSafe);

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::vfio_pci_core_unfence(self.0.core().as_raw()) };
    }
}
