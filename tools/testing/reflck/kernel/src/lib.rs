// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the parts of the `kernel` crate that the reflck uses, so that it can be compiled
//! and tested on the host.
//!
//! Names, signatures and what may fail are the kernel's. On top of that, this crate sees what a
//! test wants to know: allocations can be made to fail and are counted ([`alloc`]), no two locks
//! may be held together, and a thread that waits can be held up when it is notified ([`sync`]).

pub mod alloc;
pub mod error;
pub mod sync;
pub mod time;

#[cfg(test)]
mod tests;

/// Stands in for `kernel::fmt`.
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

/// Stands in for `kernel::prelude`.
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

/// The macro `kernel::prelude::fmt`. It has another name here because an exported macro stands at
/// the root of its crate, where `fmt` is to be the module alone.
#[doc(hidden)]
#[macro_export]
macro_rules! format_arguments {
    ($($arguments:tt)*) => {
        ::core::format_args!($($arguments)*)
    };
}

/// Panics if the condition holds: what makes the kernel warn is a failure of a test. (Unless the
/// test has failed already, and this comes from what it drops.)
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
