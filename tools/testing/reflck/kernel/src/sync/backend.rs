// SPDX-License-Identifier: GPL-2.0

//! What the stand-in takes its reference counts, locks and threads' own data from: std, or loom in a
//! model.
//!
//! Everything that threads of a test can race for, or are told apart by, goes through here.

#[cfg(feature = "loom")]
pub use loom::{
    sync::{
        Arc,
        Condvar,
        Mutex,
        MutexGuard, //
    },
    thread_local,
};
#[cfg(not(feature = "loom"))]
pub use std::{
    sync::{
        Arc,
        Condvar,
        Mutex,
        MutexGuard, //
    },
    thread_local,
};

use std::sync::PoisonError;

/// Takes the lock. The kernel knows no poisoned locks: a thread that has panicked fails its test,
/// and what it still has to drop must be able to take the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, as [`lock`] takes a lock.
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
