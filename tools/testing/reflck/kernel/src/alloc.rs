// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::alloc`: [`KVec`], and the failure and the count of allocations.
//!
//! What a test asks for here concerns its own thread only: tests run next to each other.

use core::{
    cell::{
        Cell,
        RefCell, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    slice,
};
use std::sync::{
    atomic::{
        AtomicUsize,
        Ordering, //
    },
    Arc,
};

/// An allocation has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AllocError;

/// Flags of an allocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flags(());

/// The flags that are used.
pub mod flags {
    use super::Flags;

    /// An ordinary allocation, which may sleep.
    pub const GFP_KERNEL: Flags = Flags(());
}

thread_local! {
    /// How many allocations of this thread succeed until one fails, if any is to fail.
    static UNTIL_FAILURE: Cell<Option<usize>> = const { Cell::new(None) };

    /// Where the objects that this thread allocates count as live.
    static LEDGER: RefCell<Ledger> = RefCell::new(Ledger(Arc::new(AtomicUsize::new(0))));
}

/// A count of live objects: of those that the threads that share it have allocated, and that have
/// not been freed, by whatever thread. Every thread begins with one of its own.
#[derive(Clone)]
pub struct Ledger(Arc<AtomicUsize>);

impl Ledger {
    /// Returns the ledger of this thread.
    pub fn current() -> Self {
        LEDGER.with_borrow(Self::clone)
    }

    /// Makes this the ledger of this thread as well.
    pub fn share(&self) {
        LEDGER.set(self.clone());
    }
}

/// Calls `f` with one allocation failing: the one after the first `succeeding` ones that it makes.
///
/// Returns what `f` does, and whether it got as far as that allocation.
pub fn with_failure<R>(succeeding: usize, f: impl FnOnce() -> R) -> (R, bool) {
    UNTIL_FAILURE.set(Some(succeeding));
    let result = f();
    let has_failed = UNTIL_FAILURE.take().is_none();

    (result, has_failed)
}

/// Returns how many reference-counted objects are live by the ledger of this thread.
pub fn live() -> usize {
    Ledger::current().0.load(Ordering::SeqCst)
}

/// Every allocation asks here whether it succeeds.
pub(crate) fn allocate() -> Result<(), AllocError> {
    match UNTIL_FAILURE.get() {
        Some(0) => {
            UNTIL_FAILURE.set(None);
            Err(AllocError)
        }
        Some(succeeding) => {
            UNTIL_FAILURE.set(Some(succeeding - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Makes an object count as live while it exists.
pub(crate) struct Counted(Ledger);

impl Counted {
    pub(crate) fn new() -> Self {
        let ledger = Ledger::current();
        ledger.0.fetch_add(1, Ordering::SeqCst);

        Self(ledger)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0 .0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A vector whose growth can fail.
///
/// It grows by what is needed and not more, so that whatever may have to allocate in the kernel,
/// where the capacity is doubled, does allocate here and can be made to fail.
#[derive(Debug)]
pub struct KVec<T>(Vec<T>);

impl<T> KVec<T> {
    /// Makes an empty vector without an allocation.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes room for `additional` elements. A [`KVec::push`] into room made before cannot fail.
    pub fn reserve(&mut self, additional: usize, _flags: Flags) -> Result<(), AllocError> {
        if self.0.capacity() - self.0.len() >= additional {
            return Ok(());
        }
        allocate()?;

        self.0.try_reserve_exact(additional).map_err(|_| AllocError)
    }

    /// Appends `element`.
    pub fn push(&mut self, element: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        self.0.push(element);

        Ok(())
    }

    /// Drops every element that `keep` does not return `true` for.
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
