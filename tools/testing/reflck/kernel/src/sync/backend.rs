// SPDX-License-Identifier: GPL-2.0

//! Locks, reference counts and thread-local data: those of std, or with `--cfg loom` or
//! `--cfg shuttle` those of these crates.

#[cfg(loom)]
use loom as base;
#[cfg(shuttle)]
use shuttle as base;
#[cfg(not(any(loom, shuttle)))]
use std as base;

pub use self::base::{
    sync::{
        atomic::AtomicU32,
        Arc,
        Condvar,
        Mutex,
        MutexGuard, //
    },
    thread_local,
};
use std::sync::PoisonError;

/// Takes the lock, also after a thread has panicked with it: the kernel has no poisoned locks.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits in the same way.
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
