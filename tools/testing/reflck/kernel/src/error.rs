// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::error`.

use crate::alloc::AllocError;
use core::convert::Infallible;

/// A kernel error number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Error(i32);

/// The error codes that are used.
pub mod code {
    use super::Error;

    /// I/O error.
    pub const EIO: Error = Error(-5);
    /// Resource temporarily unavailable.
    pub const EAGAIN: Error = Error(-11);
    /// Out of memory.
    pub const ENOMEM: Error = Error(-12);
    /// Device or resource busy.
    pub const EBUSY: Error = Error(-16);
    /// Invalid argument.
    pub const EINVAL: Error = Error(-22);
}

/// A [`core::result::Result`] with a kernel error.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
