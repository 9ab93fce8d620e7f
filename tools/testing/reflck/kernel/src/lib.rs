// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the parts of the `kernel` crate that the reflck and its tests use, on the host.
//!
//! Names, signatures and failures are the kernel's. For tests, this crate also makes allocations
//! fail and counts them ([`alloc`]), panics if two locks are held at once, and calls hooks at
//! points where a thread may wait ([`sync`]). With `--cfg loom` its locks and atomics are loom's,
//! with `--cfg shuttle` shuttle's.

pub mod alloc;
pub mod error;
pub mod sync;
pub mod time;

#[cfg(all(test, not(loom)))]
mod tests;

pub mod fmt {
    pub use core::fmt::{
        Arguments,
        Debug,
        Display,
        Error,
        Formatter,
        Result,
        Write, //
    };
}

pub mod prelude {
    pub use crate::{
        alloc::{
            flags::*,
            KVec, //
        },
        error::{
            code::*,
            Error,
            Result, //
        },
        format_arguments as fmt,
    };
    pub use core::ffi::CStr;
    pub use pinned_init::{
        pin_data,
        pin_init,
        PinInit, //
    };
}

/// `kernel::prelude::fmt`. An exported macro is at the root of its crate, where `fmt` is a module.
#[doc(hidden)]
#[macro_export]
macro_rules! format_arguments {
    ($($arguments:tt)*) => {
        ::core::format_args!($($arguments)*)
    };
}

/// Panics if the condition holds, unless the thread is panicking.
#[macro_export]
macro_rules! warn_on {
    ($condition:expr) => {{
        let condition: bool = $condition;
        assert!(
            !condition || ::std::thread::panicking(),
            "WARN_ON({})",
            stringify!($condition)
        );
        condition
    }};
}
