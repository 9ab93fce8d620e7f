// SPDX-License-Identifier: GPL-2.0

use core::marker::PhantomData;
use std::time;

#[derive(Clone, Copy)]
pub struct Monotonic;

#[derive(Clone, Copy)]
pub struct Instant<C>(time::Instant, PhantomData<C>);

impl Instant<Monotonic> {
    pub fn now() -> Self {
        Self(time::Instant::now(), PhantomData)
    }

    pub fn elapsed(&self) -> Delta {
        // CAST: Three centuries fit.
        Delta(self.0.elapsed().as_nanos() as i64)
    }
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy)]
pub struct Delta(i64);

impl Delta {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros * 1000)
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

pub mod delay {
    use super::Delta;
    use crate::sync::hooks::{
        self,
        Point, //
    };

    /// Does not sleep, but calls the hook of this thread.
    pub fn fsleep(_: Delta) {
        hooks::reach(Point::Sleep);
    }
}
