// SPDX-License-Identifier: GPL-2.0

//! The work that cleans a member: its first reset, the end of a close, and another reset after that
//! if others could reach the member.

use super::{
    domain::Domain,
    member::{
        Chore,
        Claim,
        Condition,
        Member, //
    },
    Hardware, //
};
use crate::bindings::work::{
    DelayedWork,
    Work, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// The delays before another attempt to clean a function whose device lock is held elsewhere.
///
/// Its probe holds it, a reset through sysfs, or a bus reset for a sibling.
const DELAYS_MS: [u32; 6] = [5, 10, 20, 40, 80, 160];

/// The delay after the first look at a member that others can reach, which doubles, and the number
/// of looks.
///
/// A virtual machine that ends gives up its memory within seconds. A user who lives on may keep a
/// member within reach for as long: after eleven minutes, its reset is left to the next open.
const LOOK_MS: u32 = 10;
const LOOKS: u32 = 16;

/// The work of a member.
#[pin_data]
pub(super) struct Cleaner<H: Hardware> {
    member: Arc<Member<H>>,
    domain: Arc<DelayedWork<Domain<H>>>,
    /// How often the member could not be reset again since its last chore or close. Changed under
    /// the reflck.
    looks: Atomic<u32>,
}

impl<H: Hardware> Cleaner<H> {
    pub(super) fn new(
        member: Arc<Member<H>>,
        domain: Arc<DelayedWork<Domain<H>>>,
    ) -> Result<Arc<DelayedWork<Self>>> {
        Arc::pin_init(
            DelayedWork::new(pin_init!(Self {
                member,
                domain,
                looks: Atomic::new(0),
            })),
            GFP_KERNEL,
        )
    }

    /// Records that the member is idle, and its condition if that has changed.
    ///
    /// A reset of the domain may follow. Takes the reflck.
    fn settle(&self, condition: Option<Condition>) {
        self.domain.settle(&self.member, |state| {
            state.claim = Claim::Idle;
            state.condition = condition.unwrap_or(state.condition);
            self.looks.store(0, Relaxed);
        });
    }

    /// Resets an idle function. Returns whether it was. Its condition is as before if not.
    fn reset(&self, is_last: bool) -> Result<bool> {
        let result = self.member.hardware.reset_alone();
        if result == Err(EAGAIN) && !is_last {
            return Err(EAGAIN);
        }
        self.settle(result.is_ok().then_some(Condition::Clean));

        Ok(result.is_ok())
    }

    /// Returns whether the function was reset.
    fn finish_close(&self, is_last: bool) -> Result<bool> {
        let is_dirty = self.member.hardware.finish_close(is_last)?;
        self.settle(Some(match is_dirty {
            true => Condition::Dirty,
            false => Condition::Clean,
        }));

        Ok(!is_dirty)
    }

    /// Begins another reset of a member that others could reach during its last one, once they
    /// cannot. Returns the delay before that, or before the next look. Takes the reflck.
    fn clean_again(&self) -> Option<u32> {
        let mut members = self.domain.members.lock();
        let Member { hardware, state } = &*self.member;

        // That of a member in use is not.
        if state.access(&members).condition != Condition::Clean || !hardware.was_exposed() {
            return None;
        }
        if hardware.is_exposed() || !self.member.may_be_reset(&members) {
            let looks = self.looks.load(Relaxed);
            self.looks.store(looks + 1, Relaxed);
            return (looks < LOOKS).then(|| LOOK_MS << looks);
        }
        self.domain
            .begin_chore(&mut members, &self.member, Chore::Reset);

        Some(0)
    }

    /// Looks at a member later that was closed and reset. Called with the reflck held.
    pub(super) fn look_later(self: &DelayedWork<Self>) {
        self.looks.store(0, Relaxed);
        if self.member.hardware.was_exposed() {
            self.schedule(LOOK_MS);
        }
    }
}

impl<H: Hardware> Work for Cleaner<H> {
    /// Cleans the member. Takes the reflck, but not during the reset of the function.
    fn run(&self) -> Option<u32> {
        let claim = self.member.state.access(&self.domain.members.lock()).claim;
        let Claim::Cleaning(chore, failed) = claim else {
            return self.clean_again();
        };

        let delay = DELAYS_MS.get(failed).copied();
        let result = match chore {
            Chore::Reset => self.reset(delay.is_none()),
            Chore::FinishClose => self.finish_close(delay.is_none()),
        };
        if let Ok(was_reset) = result {
            return was_reset.then(|| self.clean_again()).flatten();
        }
        let mut members = self.domain.members.lock();
        self.member.state.access_mut(&mut members).claim = Claim::Cleaning(chore, failed + 1);

        delay
    }
}
