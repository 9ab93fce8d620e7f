// SPDX-License-Identifier: GPL-2.0

//! Why a slot or bus reset is not made, and whether it is worth another attempt.
//!
//! Decisions from facts that the hardware has gathered, without PCI calls.

use super::{
    Address,
    Failure, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// The owner of a function that is not a member of the domain.
pub(crate) trait Stranger: fmt::Display {
    /// Returns whether the function has no owner now, but is about to.
    fn is_changing(&self) -> bool;

    /// Returns whether root can bind the function to the driver.
    fn is_bindable(&self) -> bool;
}

/// The reason why an affected function does not allow a slot or bus reset.
pub(crate) enum Obstacle<S> {
    /// It is not a member of the domain.
    Stranger(S),
    /// It is a member, and its virtual functions are not.
    VirtualFunctions,
    /// It is a member, and root has disabled its resets.
    Disabled,
    /// Its device lock is held until it has left the domain, and it is reset before that.
    Unbinding {
        /// Whether it is the only member.
        is_last: bool,
    },
    /// There is nothing left to reset.
    Unplugged,
    /// It does not answer. A hot reset is made all the same.
    Gone,
}

impl<S> Obstacle<S> {
    /// Returns the reason, unless a function of the slot or bus allows the reset.
    pub(crate) fn of_affected(
        is_member: bool,
        has_virtual_functions: bool,
        owner: impl FnOnce() -> S,
    ) -> Option<Self> {
        match (is_member, has_virtual_functions) {
            (false, _) => Some(Self::Stranger(owner())),
            (true, true) => Some(Self::VirtualFunctions),
            (true, false) => None,
        }
    }

    /// Returns the reason, unless a member allows the reset.
    pub(crate) fn of_member(
        is_unplugged: bool,
        is_unbinding: bool,
        is_last: bool,
        is_disabled: bool,
    ) -> Option<Self> {
        match (is_unplugged, is_unbinding, is_disabled) {
            (true, _, _) => Some(Self::Unplugged),
            (false, true, _) => Some(Self::Unbinding { is_last }),
            (false, false, true) => Some(Self::Disabled),
            (false, false, false) => None,
        }
    }

    /// Returns the error of a hot reset.
    pub(crate) fn error(&self) -> Error {
        match self {
            Self::Stranger(_) | Self::VirtualFunctions | Self::Disabled => EINVAL,
            Self::Unbinding { .. } => EAGAIN,
            Self::Unplugged | Self::Gone => ENODEV,
        }
    }
}

impl<S: Stranger> fmt::Display for Obstacle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger(owner) => owner.fmt(f),
            Self::VirtualFunctions => f.write_str("has virtual functions"),
            Self::Disabled => f.write_str("must not be reset, as its reset_method is empty"),
            Self::Unbinding { .. } => f.write_str("is being unbound"),
            Self::Unplugged => f.write_str("was unplugged"),
            Self::Gone => f.write_str("does not answer"),
        }
    }
}

/// The reason why a slot or bus reset of an unused domain failed.
pub(crate) enum ResetFailure<S> {
    /// There is no slot or bus reset: the bridge or a function must not see one.
    NoReset,
    /// The function at this address does not allow the reset, with the list of all such functions,
    /// which is empty if there was no memory for it.
    Obstacles((Address, Obstacle<S>), KVec<(Address, Obstacle<S>)>),
    /// The reset failed with this error.
    Failed(Error),
}

impl<S> ResetFailure<S> {
    /// Returns whether user space can cause the failure by opening and closing a function, as often
    /// as it likes.
    pub(crate) fn is_at_will(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// Returns the functions that do not allow the reset, as far as they are known.
    fn obstacles(&self) -> &[(Address, Obstacle<S>)] {
        match self {
            Self::Obstacles(_, all) if !all.is_empty() => all,
            Self::Obstacles(first, _) => core::slice::from_ref(first),
            Self::NoReset | Self::Failed(_) => &[],
        }
    }
}

impl<S: Stranger> Failure for ResetFailure<S> {
    /// Root removes most obstacles by binding a function. The next close finds that. But a function
    /// that is changing may be about to join, one that is unbound leaves, and some errors pass.
    fn is_transient(&self) -> bool {
        match self {
            Self::NoReset => false,
            Self::Obstacles(..) => self.obstacles().iter().all(|(_, obstacle)| match obstacle {
                Obstacle::Stranger(owner) => owner.is_changing(),
                Obstacle::Unbinding { is_last } => !is_last,
                Obstacle::VirtualFunctions
                | Obstacle::Disabled
                | Obstacle::Unplugged
                | Obstacle::Gone => false,
            }),
            Self::Failed(error) => error.is_transient(),
        }
    }
}

impl Failure for Error {
    /// [`EAGAIN`]: a lock is held elsewhere. [`EACCES`] and [`EBUSY`]: runtime PM is off for now,
    /// as during system sleep, or the bridge above is changing its power state.
    fn is_transient(&self) -> bool {
        matches!(*self, EAGAIN | EACCES | EBUSY)
    }
}

impl<S: Stranger> ResetFailure<S> {
    /// Returns whether the reset is possible once root has bound some functions to the driver.
    fn needs_binding(&self) -> bool {
        let is_bindable = |obstacle: &Obstacle<S>| match obstacle {
            Obstacle::Stranger(owner) => owner.is_bindable(),
            _ => false,
        };

        let obstacles = self.obstacles();

        !obstacles.is_empty() && obstacles.iter().all(|(_, obstacle)| is_bindable(obstacle))
    }
}

/// The end of a log line about a failure, after the name of the reset.
pub(crate) struct Report<'a, S> {
    pub(crate) failure: &'a ResetFailure<S>,
    /// The name of the driver.
    pub(crate) driver: &'static str,
    /// Functions that are still owed a reset.
    pub(crate) dirty: usize,
    /// The delay before the next attempt in milliseconds, if there is one.
    pub(crate) retry_in: Option<u32>,
}

impl<S: Stranger> fmt::Display for Report<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure {
            ResetFailure::NoReset => f.write_str("skipped: it has no such reset"),
            ResetFailure::Obstacles(..) => {
                for (i, (address, obstacle)) in self.failure.obstacles().iter().enumerate() {
                    let before = if i == 0 { "skipped:" } else { "," };
                    f.write_fmt(fmt!("{before} {address} {obstacle}"))?;
                }
                Ok(())
            }
            ResetFailure::Failed(error) => f.write_fmt(fmt!(
                "failed with error {}, {} functions stay dirty",
                error.to_errno(),
                self.dirty
            )),
        }?;
        if self.failure.needs_binding() {
            f.write_fmt(fmt!(
                "; bind each: driverctl set-override ADDRESS {}",
                self.driver
            ))?;
        }

        match self.retry_in {
            Some(ms) => f.write_fmt(fmt!(", next attempt in {ms} ms")),
            None if self.failure.is_transient() => f.write_str(", given up until the next close"),
            None => Ok(()),
        }
    }
}
