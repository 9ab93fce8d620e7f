// SPDX-License-Identifier: GPL-2.0

//! The order in which transitions begin, guarded by the reflck.

use super::{
    member::{
        Member,
        Members, //
    },
    Hardware,
    Membership,
    Purpose, //
};
use kernel::{
    prelude::*,
    sync::MutexGuard, //
};

impl<H: Hardware> Members<H> {
    /// Returns whether a transition of `member` must let an earlier one begin first.
    ///
    /// That one waits, and would have to wait for this one as well. It would starve if siblings
    /// kept beginning such transitions in turns. An open is also what a cleaning follows, which a
    /// bind waits for. A close and an unbind let none go first: there are no more of them than
    /// opens and binds. Nor does an open in a serialized domain while the earlier one waits for
    /// iommufd in its IOMMU group: that takes as long as the user of that group likes, who may not
    /// hold up others.
    ///
    /// A transition lets earlier ones go first only, so that none waits in a circle. The first one
    /// waits for members in transit, which wait for no other transition.
    fn is_reserved(&self, member: &Member<H>, purpose: Purpose, turn: u64) -> bool {
        self.list.iter().any(|other| {
            let Some((earlier, waiting)) = other.state.access(self).turn else {
                return false;
            };
            let shares_group = || other.hardware.shares_iommu_group(&member.hardware);

            earlier < turn
                && match (purpose, waiting) {
                    (Purpose::Open, Purpose::Open | Purpose::Close) => {
                        self.serialized && !self.is_rebinding_group_of(other)
                    }
                    (Purpose::Open, Purpose::Bind | Purpose::Attach)
                    | (
                        Purpose::Bind | Purpose::Attach | Purpose::Detach,
                        Purpose::Open | Purpose::Close,
                    ) => shares_group(),
                    _ => false,
                }
        })
    }

    /// Returns whether iommufd has a member of the IOMMU group of `member`.
    fn is_rebinding_group_of(&self, member: &Member<H>) -> bool {
        self.list.iter().any(|other| {
            other.state.access(self).is_rebinding()
                && other.hardware.shares_iommu_group(&member.hardware)
        })
    }
}

impl<H: Hardware> Membership<H> {
    /// Waits for the members that the purpose excludes, for hot resets that wait, and for its turn.
    ///
    /// Fails like [`Domain::wait`].
    ///
    /// [`Domain::wait`]: super::domain::Domain::wait
    pub(super) fn wait_for_turn(
        &self,
        members: &mut MutexGuard<'_, Members<H>>,
        purpose: Purpose,
    ) -> Result {
        let mut result = Ok(());

        members.turns += 1;
        let turn = members.turns;
        while result.is_ok()
            && (members.waiting > 0
                || members.excludes(&self.member, purpose)
                || members.is_reserved(&self.member, purpose, turn))
        {
            self.member.state.access_mut(members).turn = Some((turn, purpose));
            result = self.seat.wait(members, purpose);
        }
        // Others that let it go first look again.
        if self.member.state.access_mut(members).turn.take().is_some() {
            self.seat.settled.notify_all();
        }

        result
    }
}
