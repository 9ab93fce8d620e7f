// SPDX-License-Identifier: GPL-2.0

//! The work that cleans a member: its first reset, and the end of a close.

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
    sync::Arc, //
};

/// The delays before another attempt to clean a function whose device lock is held elsewhere.
///
/// Its probe holds it, a reset through sysfs, or a bus reset for a sibling.
const DELAYS_MS: [u32; 6] = [5, 10, 20, 40, 80, 160];

/// The work of a member.
#[pin_data]
pub(super) struct Cleaner<H: Hardware> {
    member: Arc<Member<H>>,
    domain: Arc<DelayedWork<Domain<H>>>,
}

impl<H: Hardware> Cleaner<H> {
    pub(super) fn new(
        member: Arc<Member<H>>,
        domain: Arc<DelayedWork<Domain<H>>>,
    ) -> Result<Arc<DelayedWork<Self>>> {
        Arc::pin_init(
            DelayedWork::new(pin_init!(Self { member, domain })),
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
        });
    }

    /// Resets a function that has just been bound. Its condition is as before if that fails.
    fn reset(&self, is_last: bool) -> Result {
        let result = self.member.hardware.reset_alone();
        if result == Err(EAGAIN) && !is_last {
            return result;
        }
        self.settle(result.is_ok().then_some(Condition::Clean));

        Ok(())
    }

    fn finish_close(&self, is_last: bool) -> Result {
        let is_dirty = self.member.hardware.finish_close(is_last)?;
        self.settle(Some(match is_dirty {
            true => Condition::Dirty,
            false => Condition::Clean,
        }));

        Ok(())
    }
}

impl<H: Hardware> Work for Cleaner<H> {
    /// Cleans the member. Takes the reflck, but not during the reset of the function.
    fn run(&self) -> Option<u32> {
        let claim = self.member.state.access(&self.domain.members.lock()).claim;
        let Claim::Cleaning(chore, failed) = claim else {
            return None;
        };

        let delay = DELAYS_MS.get(failed).copied();
        let result = match chore {
            Chore::Reset => self.reset(delay.is_none()),
            Chore::FinishClose => self.finish_close(delay.is_none()),
        };
        // It has settled.
        result.err()?;
        let mut members = self.domain.members.lock();
        self.member.state.access_mut(&mut members).claim = Claim::Cleaning(chore, failed + 1);

        delay
    }
}
