// SPDX-License-Identifier: GPL-2.0

//! Guards for a member in transit. Each records the result when it is consumed or dropped.
//!
//! All of them take the reflck, and keep it during a reset that may follow.

use super::{
    member::{
        Binding,
        Chore,
        Claim,
        Condition, //
    },
    Hardware,
    Membership, //
};

/// A member that is opening.
///
/// Dropping it records that opening failed, which counts as a close: the member is idle again, as
/// dirty as before.
#[must_use = "dropping the claim records that opening failed"]
pub(crate) struct Opening<'a, H: Hardware>(pub(super) &'a Membership<H>);

impl<H: Hardware> Opening<'_, H> {
    /// Records that the member is open. `was_reset` says whether the open has reset it, or found it
    /// clean.
    pub(crate) fn succeed(self, was_reset: bool) {
        self.0.settle(|state| {
            state.claim = Claim::Open;
            state.was_used = true;
            if was_reset || !state.is_dirty() {
                state.condition = Condition::Unknown;
            }
        });
        core::mem::forget(self);
    }
}

impl<H: Hardware> Drop for Opening<'_, H> {
    fn drop(&mut self) {
        self.0.settle(|state| state.claim = Claim::Idle);
    }
}

/// A member that is closing.
///
/// Dropping it records an unknown result: the member is idle and dirty.
#[must_use = "dropping the claim leaves the member dirty"]
pub(crate) struct Closing<'a, H: Hardware>(pub(super) &'a Membership<H>);

impl<H: Hardware> Closing<'_, H> {
    /// Records that the member is idle, and whether it is still owed a reset.
    pub(crate) fn settle(self, dirty: bool) {
        self.idle(dirty);
        core::mem::forget(self);
    }

    /// Leaves the member closing. [`Membership::closing`] returns the guard again.
    pub(crate) fn detach(self) {
        core::mem::forget(self);
    }

    /// Leaves the rest of the close to work, which calls [`Hardware::finish_close`].
    pub(crate) fn finish_later(self) {
        self.0.begin_chore(Chore::FinishClose);
        core::mem::forget(self);
    }

    fn idle(&self, dirty: bool) {
        self.0.settle(|state| {
            state.claim = Claim::Idle;
            state.condition = match dirty {
                true => Condition::Dirty,
                false => Condition::Clean,
            };
            if !dirty {
                self.0.cleaner.look_later();
            }
        });
    }
}

impl<H: Hardware> Drop for Closing<'_, H> {
    fn drop(&mut self) {
        self.idle(true);
    }
}

/// A member that iommufd binds, unbinds or attaches.
///
/// Dropping it records that iommufd has finished. A member that is neither bound nor open after
/// that is unused.
#[must_use = "dropping the claim records that iommufd has finished"]
pub(crate) struct Rebinding<'a, H: Hardware> {
    pub(super) membership: &'a Membership<H>,
    pub(super) context: H::Context,
    pub(super) after: Binding<H::Context>,
}

impl<H: Hardware> Drop for Rebinding<'_, H> {
    fn drop(&mut self) {
        self.membership.settle_binding(self.after);
    }
}

/// An unbound member that iommufd binds.
///
/// Dropping it records that binding failed.
#[must_use = "dropping the claim records that binding failed"]
pub(crate) struct NewBinding<'a, H: Hardware>(pub(super) Rebinding<'a, H>);

impl<H: Hardware> NewBinding<'_, H> {
    /// Records that the member is bound, with this ID in its context.
    pub(crate) fn bound(mut self, id: u32) {
        self.0.after = Binding::Bound(self.0.context, id);
    }
}
