// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::time`.

use core::marker::PhantomData;
use std::time;

/// The monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic;

/// A point in time on the clock `C`.
#[derive(Clone, Copy, Debug)]
pub struct Instant<C>(time::Instant, PhantomData<C>);

impl Instant<Monotonic> {
    /// Returns the present time.
    pub fn now() -> Self {
        Self(time::Instant::now(), PhantomData)
    }

    /// Returns how much time has passed since then.
    pub fn elapsed(&self) -> Delta {
        // CAST: Three centuries fit.
        Delta(self.0.elapsed().as_nanos() as i64)
    }
}

/// A span of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delta(i64);

impl Delta {
    /// Returns the span in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}
