// SPDX-License-Identifier: GPL-2.0

//! Events that the reflck reports to the hardware, for logs and traces.

use super::{
    Address,
    Hardware, //
};
use kernel::{
    prelude::*,
    time::Delta, //
};

/// An operation that waits for the reflck.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// A user opens the function.
    Open,
    /// The last user closes the function.
    Close,
    /// iommufd binds the function.
    Bind,
    /// iommufd unbinds the function.
    Unbind,
    /// iommufd attaches the function.
    Attach,
    /// iommufd detaches the function.
    Detach,
    /// A user resets a domain that it owns.
    HotReset,
    /// The driver resets the function by its work.
    Clean,
}

impl Purpose {
    /// Returns the name for traces.
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Open => c"open",
            Self::Close => c"close",
            Self::Bind => c"bind",
            Self::Unbind => c"unbind",
            Self::Attach => c"attach",
            Self::Detach => c"detach",
            Self::HotReset => c"hot-reset",
            Self::Clean => c"clean",
        }
    }

    /// Returns whether a signal ends the wait. An operation that gives the function back cannot
    /// fail.
    pub(super) fn is_interruptible(self) -> bool {
        match self {
            Self::Open | Self::Bind | Self::Attach | Self::HotReset => true,
            Self::Close | Self::Unbind | Self::Detach | Self::Clean => false,
        }
    }

    /// Returns whether a member that is cleaning has to be idle again before.
    pub(super) fn needs_idle(self) -> bool {
        matches!(self, Self::Open | Self::Bind | Self::Attach)
    }
}

/// An event of a member. All but [`Event::Wait`] come with the reflck held.
pub(crate) enum Event<'a, H: Hardware> {
    /// The operation is about to wait for the reflck, and maybe for other members.
    ///
    /// No [`Event::Claim`] follows if the operation is refused, or a signal ends the wait.
    Wait(Purpose),
    /// The wait ended after this time. The member is now in transit, or, for a hot reset, the
    /// domain is quiescent.
    Claim(Purpose, Delta),
    /// The member left transit. A reset may follow.
    Settle {
        open: bool,
        bound: bool,
        dirty: bool,
    },
    /// The same, but its binding was in transit and not its claim.
    Rebound {
        open: bool,
        bound: bool,
        dirty: bool,
    },
    /// A reset is owed, but the function at `user` is in use.
    Deferred { user: Address },
    /// A reset failed. `dirty` members are still owed one, which is retried after `retry_in`
    /// milliseconds.
    ResetFailed {
        failure: &'a H::Failure,
        dirty: usize,
        retry_in: Option<u32>,
    },
}
