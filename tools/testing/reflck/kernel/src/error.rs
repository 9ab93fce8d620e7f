// SPDX-License-Identifier: GPL-2.0

use crate::alloc::AllocError;
use core::convert::Infallible;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Error(i32);

impl Error {
    pub fn to_errno(self) -> i32 {
        self.0
    }
}

pub mod code {
    use super::Error;

    pub const EIO: Error = Error(-5);
    pub const EAGAIN: Error = Error(-11);
    pub const ENOMEM: Error = Error(-12);
    pub const EACCES: Error = Error(-13);
    pub const EBUSY: Error = Error(-16);
    pub const ENODEV: Error = Error(-19);
    pub const EINVAL: Error = Error(-22);
    pub const ENOTTY: Error = Error(-25);
    pub const ERESTARTNOINTR: Error = Error(-513);
}

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
