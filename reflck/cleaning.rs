// SPDX-License-Identifier: GPL-2.0

//! Members that are clean, and those that are put into the hands of their work.

use super::{
    member::{
        Chore,
        Condition,
        Members, //
    },
    Hardware,
    Membership, //
};
use crate::bindings::work::Work;

impl<H: Hardware> Membership<H> {
    /// Returns whether an open can skip the reset of the function, which it has just woken.
    ///
    /// The caller holds the [`Opening`](super::claim::Opening). Takes the reflck.
    pub(crate) fn is_clean(&self) -> bool {
        let members = self.seat.members.lock();

        self.member.state.access(&members).condition == Condition::Clean
            && self.hardware().is_untouched(1)
    }

    /// Lets work reset a function that has just been bound, unless it is in use already.
    ///
    /// A hot reset that waits goes first, and if no two members may be reset at a time, so does one
    /// in transit. Then the first open resets the function. Takes the reflck.
    pub(crate) fn reset_later(&self) {
        self.reset_later_locked(&mut self.seat.members.lock());
    }

    /// The same. Returns whether the function will be reset.
    pub(super) fn reset_later_locked(&self, members: &mut Members<H>) -> bool {
        let is_allowed = self.member.may_be_reset(members);
        if is_allowed {
            self.begin_chore_locked(members, Chore::Reset);
        }

        is_allowed
    }

    /// Puts the member into the hands of its work. Takes the reflck.
    pub(super) fn begin_chore(&self, chore: Chore) {
        self.begin_chore_locked(&mut self.seat.members.lock(), chore);
    }

    fn begin_chore_locked(&self, members: &mut Members<H>, chore: Chore) {
        self.seat.begin_chore(members, &self.member, chore);
        self.cleaner.schedule(0);
    }

    /// Does the work on the member here, or waits for its end. None is scheduled after that.
    ///
    /// Called when no user can open the member any more. Without its device lock, which the caller
    /// may hold, the function is not reset. Takes the reflck.
    pub(crate) fn finish_cleaning(&self) {
        loop {
            self.cleaner.cancel_sync();
            let members = self.seat.members.lock();
            if !self.member.state.access(&members).is_cleaning() {
                return;
            }
            drop(members);
            self.cleaner.run();
        }
    }
}
