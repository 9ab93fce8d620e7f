// SPDX-License-Identifier: GPL-2.0

//! The record of the last reset of a function: the proof that it is clean.
//!
//! A function in D3hot answers no memory access, so it must be woken before it can be touched.
//! vfio-pci-core counts the wake-ups. This file counts resets by others, which can fail, and
//! errors. A function is clean as long as it was asleep from its reset on, and neither count has
//! changed, the wake-up for its next user aside.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How a reset by the driver reaches a function.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Reset {
    /// With its siblings, which calls the error handlers.
    Shared,
    /// Alone, by `pci_try_reset_function()`, which calls the error handlers.
    Alone,
    /// Alone, by `__pci_reset_function_locked()`, which does not.
    Bare,
}

/// The last reset of a function, and the count of later resets and errors.
///
/// The owner of the function's claim writes the fields, or the holder of the reflck. `disturbances`
/// can change at any time.
pub(crate) struct Record {
    /// Resets that have begun, the driver's own among them, and errors.
    disturbances: Atomic<u32>,
    /// `disturbances` before the current reset by the driver.
    before: Atomic<u32>,
    /// The counts at the end of the last reset that has worked.
    resumes_then: Atomic<u32>,
    disturbances_then: Atomic<u32>,
    /// Whether there is such a reset.
    is_valid: Atomic<bool>,
    /// Whether a reset of the function alone has worked.
    resets_alone: Atomic<bool>,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            disturbances: Atomic::new(0),
            before: Atomic::new(0),
            resumes_then: Atomic::new(0),
            disturbances_then: Atomic::new(0),
            is_valid: Atomic::new(false),
            resets_alone: Atomic::new(false),
        }
    }

    /// Records that a reset has begun, or that an error was detected. Called in any context.
    pub(crate) fn disturb(&self) {
        self.disturbances.fetch_add(1, Relaxed);
    }

    /// Records that the driver begins a reset.
    pub(crate) fn begin(&self) {
        self.is_valid.store(false, Relaxed);
        self.before.store(self.disturbances.load(Relaxed), Relaxed);
    }

    /// Records that the reset has worked, with the function awake since.
    ///
    /// A reset by others that has begun since [`Record::begin`] leaves nothing proven.
    pub(crate) fn end(&self, reset: Reset, resumes: u32) {
        let own = match reset {
            Reset::Shared | Reset::Alone => 1,
            Reset::Bare => 0,
        };

        self.resumes_then.store(resumes, Relaxed);
        self.disturbances_then
            .store(self.before.load(Relaxed).wrapping_add(own), Relaxed);
        self.is_valid.store(true, Relaxed);
        if reset != Reset::Shared {
            self.resets_alone.store(true, Relaxed);
        }
    }

    /// Records that the function was not put to sleep after the reset.
    pub(crate) fn invalidate(&self) {
        self.is_valid.store(false, Relaxed);
    }

    /// Returns whether nothing can have touched the function since its reset.
    ///
    /// It was woken `wakes` times by the driver, and `resumes` is the count now.
    pub(crate) fn is_untouched(&self, resumes: u32, wakes: u32) -> bool {
        self.is_valid.load(Relaxed)
            && resumes == self.resumes_then.load(Relaxed).wrapping_add(wakes)
            && self.disturbances.load(Relaxed) == self.disturbances_then.load(Relaxed)
    }

    /// Returns whether a reset of the function alone has worked.
    pub(crate) fn resets_alone(&self) -> bool {
        self.resets_alone.load(Relaxed)
    }
}
