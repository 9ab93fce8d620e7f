// SPDX-License-Identifier: GPL-2.0

use super::{
    address_of,
    Mutex, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData, //
};

pub struct LockedBy<T, U> {
    /// Address of the data in the lock. It is compared, never followed.
    owner: usize,
    data: UnsafeCell<T>,
    _owner: PhantomData<fn(&U)>,
}

// SAFETY: `access_mut` gives `&mut T` to one thread at a time only, for which `T: Send` suffices;
// `access`, which gives `&T` to several, asks for `T: Sync` itself.
unsafe impl<T: Send, U> Sync for LockedBy<T, U> {}

impl<T, U> LockedBy<T, U> {
    pub fn new(owner: &Mutex<U>, data: T) -> Self {
        Self {
            owner: owner.address,
            data: UnsafeCell::new(data),
            _owner: PhantomData,
        }
    }

    pub fn access<'a>(&'a self, owner: &'a U) -> &'a T
    where
        T: Sync,
    {
        self.check(owner);

        // SAFETY: `owner` is borrowed for as long as the result is. What `access_mut` returns
        // borrows it mutably, so the two cannot exist at the same time.
        unsafe { &*self.data.get() }
    }

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
