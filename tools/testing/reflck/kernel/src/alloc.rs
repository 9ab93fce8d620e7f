// SPDX-License-Identifier: GPL-2.0

//! [`KVec`], and allocations that fail and are counted, both per thread.

use core::{
    cell::Cell,
    ops::{
        Deref,
        DerefMut, //
    },
    slice,
};
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AllocError;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flags(());

pub mod flags {
    use super::Flags;

    pub const GFP_KERNEL: Flags = Flags(());
}

thread_local! {
    /// How many more allocations succeed before one fails.
    static UNTIL_FAILURE: Cell<Option<usize>> = const { Cell::new(None) };

    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// Calls `f`, in which one allocation fails after `succeeding` ones.
///
/// Returns the result of `f`, and whether the allocation has failed.
pub fn with_failure<R>(succeeding: usize, f: impl FnOnce() -> R) -> (R, bool) {
    UNTIL_FAILURE.set(Some(succeeding));
    let result = f();
    let has_failed = UNTIL_FAILURE.take().is_none();

    (result, has_failed)
}

/// Returns the number of live reference-counted objects, if one thread makes and drops all.
pub fn live() -> usize {
    LIVE.get()
}

/// Decides whether an allocation succeeds.
pub(crate) fn allocate() -> Result<(), AllocError> {
    let succeeding = UNTIL_FAILURE.get();
    UNTIL_FAILURE.set(succeeding.and_then(|count| count.checked_sub(1)));

    match succeeding {
        Some(0) => Err(AllocError),
        _ => Ok(()),
    }
}

/// Part of an object that counts as live.
pub(crate) struct Counted(());

impl Counted {
    pub(crate) fn new() -> Self {
        LIVE.set(LIVE.get().wrapping_add(1));

        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.set(LIVE.get().wrapping_sub(1));
    }
}

/// Grows by no more than it must, so that each call that may allocate in the kernel does so here.
#[derive(Debug)]
pub struct KVec<T>(Vec<T>);

impl<T> KVec<T> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut vector = Self::new();
        vector.reserve(capacity, flags)?;

        Ok(vector)
    }

    pub fn reserve(&mut self, additional: usize, _flags: Flags) -> Result<(), AllocError> {
        if self.0.capacity() - self.0.len() >= additional {
            return Ok(());
        }
        allocate()?;

        self.0.try_reserve_exact(additional).map_err(|_| AllocError)
    }

    pub fn push(&mut self, element: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        self.0.push(element);

        Ok(())
    }

    pub fn push_within_capacity(&mut self, element: T) -> Result<(), T> {
        if self.0.len() == self.0.capacity() {
            return Err(element);
        }
        self.0.push(element);

        Ok(())
    }

    pub fn retain(&mut self, keep: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(keep);
    }
}

impl<T> Default for KVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for KVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for KVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'a, T> IntoIterator for &'a KVec<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
