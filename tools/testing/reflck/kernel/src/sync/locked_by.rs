// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::sync::LockedBy`.

use super::{
    address_of,
    Mutex, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData, //
};

/// Data that is guarded by a lock which does not wrap it.
pub struct LockedBy<T, U> {
    /// Address of what the lock does wrap. It is compared and never followed.
    owner: usize,
    data: UnsafeCell<T>,
    _owner: PhantomData<fn(&U)>,
}

// SAFETY: `access_mut` gives `&mut T` to one thread at a time only, for which `T: Send` suffices;
// `access`, which gives `&T` to several, asks for `T: Sync` itself.
unsafe impl<T: Send, U> Sync for LockedBy<T, U> {}

impl<T, U> LockedBy<T, U> {
    /// Puts `data` under the lock `owner`, which need not be held.
    pub fn new(owner: &Mutex<U>, data: T) -> Self {
        Self {
            owner: owner.address,
            data: UnsafeCell::new(data),
            _owner: PhantomData,
        }
    }

    /// Returns the data, `owner` being the evidence that the lock is held.
    ///
    /// # Panics
    ///
    /// Panics if `owner` is not what the lock given to [`LockedBy::new`] wraps.
    pub fn access<'a>(&'a self, owner: &'a U) -> &'a T
    where
        T: Sync,
    {
        self.check(owner);

        // SAFETY: `owner` is borrowed for as long as the result is. What `access_mut` returns
        // borrows it mutably, so the two cannot exist at the same time.
        unsafe { &*self.data.get() }
    }

    /// Returns the data for changing, `owner` being the evidence that the lock is held.
    ///
    /// # Panics
    ///
    /// Panics if `owner` is not what the lock given to [`LockedBy::new`] wraps.
    pub fn access_mut<'a>(&'a self, owner: &'a mut U) -> &'a mut T {
        self.check(owner);

        // SAFETY: `owner` is borrowed mutably for as long as the result is, so there is no other
        // reference to the data.
        unsafe { &mut *self.data.get() }
    }

    fn check(&self, owner: &U) {
        // Two owners without a size may have the same address.
        const { assert!(size_of::<U>() > 0) };
        assert_eq!(address_of(owner), self.owner, "mismatched owners");
    }
}
