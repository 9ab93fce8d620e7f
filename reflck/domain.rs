// SPDX-License-Identifier: GPL-2.0

//! A reset domain: its lock, and the resets that it is owed.

use super::{
    member::{
        Binding,
        Chore,
        Claim,
        Member,
        Members,
        State,
        Unused, //
    },
    Event,
    Failure,
    Hardware,
    Purpose,
    ResetScope, //
};
use crate::bindings::work::{
    DelayedWork,
    Work, //
};
use kernel::{
    prelude::*,
    sync::{
        new_condvar,
        new_mutex,
        Arc,
        CondVar,
        Mutex,
        MutexGuard, //
    },
    time::Delta, //
};

/// The delay before each retry of a reset.
///
/// A reset fails transiently if the device lock of a function is held elsewhere. Binding, unbinding
/// and resetting a function hold it for no longer than this, if nothing is wrong.
const RETRY_DELAYS_MS: [u32; 8] = [100, 200, 400, 800, 1600, 3200, 6400, 12800];

/// A reset domain. The work is the retry of a reset that has failed.
#[pin_data]
pub(super) struct Domain<H: Hardware> {
    pub(super) scope: ResetScope,
    /// The reflck.
    #[pin]
    pub(super) members: Mutex<Members<H>>,
    /// Notified when a member leaves transit or joins, when a hot reset ends, and when a transition
    /// has had its turn.
    #[pin]
    pub(super) settled: CondVar,
}

impl<H: Hardware> Domain<H> {
    pub(super) fn new(scope: ResetScope) -> Result<Arc<DelayedWork<Self>>> {
        Arc::pin_init(
            DelayedWork::new(pin_init!(Self {
                scope,
                members <- new_mutex!(Members::new(), "reflck"),
                settled <- new_condvar!("reflck_settled"),
            })),
            GFP_KERNEL,
        )
    }

    /// Waits for a change that [`Domain::settled`] is notified of.
    ///
    /// Drops the reflck meanwhile. Fails with [`ERESTARTNOINTR`] if a signal ends the wait and the
    /// purpose allows that. The system call is then restarted after the user's signal handler,
    /// whatever the flags of that are. So a user who is killed can leave, and no other one sees an
    /// error that vfio-pci does not return.
    pub(super) fn wait(
        &self,
        members: &mut MutexGuard<'_, Members<H>>,
        purpose: Purpose,
    ) -> Result {
        if !purpose.is_interruptible() {
            self.settled.wait(members);
        } else if self.settled.wait_interruptible(members) {
            return Err(ERESTARTNOINTR);
        }

        Ok(())
    }

    /// Changes the claim on `member` with `change`, which takes it out of transit.
    ///
    /// If the domain is now unused and any member is dirty, resets it. Takes the reflck and keeps
    /// it during the reset, so that no member can be claimed before.
    pub(super) fn settle(
        self: &DelayedWork<Self>,
        member: &Member<H>,
        change: impl FnOnce(&mut State<H::Context>),
    ) {
        let mut members = self.members.lock();

        self.end_transit(&mut members, member, false, change);
        // A member that is open settles again later. A private domain has no reset but the
        // function's own.
        let is_idle = member.state.access(&members).claim == Claim::Idle;
        if is_idle && !self.scope.is_private() && members.first_due().is_some() {
            self.attempt_reset(&mut members, &member.hardware);
        }
        members.publish();
    }

    /// Changes the binding of `member` to `binding`, which takes it out of transit.
    ///
    /// The close before that has attempted the reset, while the function was attached. So only a
    /// reset that is still owed is attempted, and only if the member is unbound: a bound one
    /// settles again later. Takes the reflck and keeps it during the reset.
    pub(super) fn settle_binding(
        self: &DelayedWork<Self>,
        member: &Member<H>,
        binding: Binding<H::Context>,
    ) {
        let mut members = self.members.lock();

        self.end_transit(&mut members, member, true, |state| state.binding = binding);
        let is_due = members.owed && members.first_due().is_some();
        // That a member in use defers the reset has been reported.
        if binding == Binding::Unbound && is_due && members.first_used().is_none() {
            self.attempt_reset(&mut members, &member.hardware);
        }
        members.publish();
    }

    /// Resets the domain before `member` is opened, if that is dirty and the domain is unused.
    ///
    /// The obstacle to the reset at the last close may be gone. A function that can be reset
    /// alone needs no more than that, unless root wants it, even before the first open.
    pub(super) fn reset_before_open(
        self: &DelayedWork<Self>,
        members: &mut Members<H>,
        member: &Member<H>,
    ) {
        let is_due = member.needs_domain(members)
            && !self.scope.is_private()
            && members.first_used().is_none();
        if is_due {
            self.attempt_reset(members, &member.hardware);
        }
    }

    /// Puts `member` into the hands of its work, which the caller schedules.
    pub(super) fn begin_chore(&self, members: &mut Members<H>, member: &Member<H>, chore: Chore) {
        member.state.access_mut(members).claim = Claim::Cleaning(chore, 0);
        member.hardware.notify(
            &self.scope,
            Event::Claim(Purpose::Clean, Delta::from_micros(0)),
        );
        members.publish();
    }

    fn end_transit(
        &self,
        members: &mut Members<H>,
        member: &Member<H>,
        is_rebound: bool,
        change: impl FnOnce(&mut State<H::Context>),
    ) {
        let state = member.state.access_mut(members);

        change(state);
        let (open, bound, dirty) = (
            state.claim == Claim::Open,
            state.binding != Binding::Unbound,
            state.is_dirty(),
        );
        member.hardware.notify(
            &self.scope,
            match is_rebound {
                true => Event::Rebound { open, bound, dirty },
                false => Event::Settle { open, bound, dirty },
            },
        );
        self.settled.notify_all();
    }

    /// Resets the domain if it is unused, and schedules a retry if one is due.
    pub(super) fn attempt_reset(self: &DelayedWork<Self>, members: &mut Members<H>, hardware: &H) {
        if let Some(ms) = self.reset_unused(members, hardware) {
            self.schedule(ms);
        }
    }

    /// Resets the domain if it is unused. Returns the delay before a retry, if one is due.
    fn reset_unused(&self, members: &mut Members<H>, hardware: &H) -> Option<u32> {
        let failed = core::mem::take(&mut members.failed);
        members.owed = members.first_used().is_some();
        let unused = match Unused::new(members) {
            Ok(unused) => unused,
            Err(user) => {
                let user = user.hardware.address();
                hardware.notify(&self.scope, Event::Deferred { user });
                return None;
            }
        };

        let Err(failure) = hardware.reset_unused(&self.scope, &unused) else {
            members.reset_done();
            return None;
        };

        let retry_in = match failure.is_transient() {
            true => RETRY_DELAYS_MS.get(failed as usize).copied(),
            false => None,
        };
        hardware.notify(
            &self.scope,
            Event::ResetFailed {
                failure: &failure,
                dirty: unused.count_dirty(),
                retry_in,
            },
        );
        members.failed = match retry_in {
            Some(_) => failed + 1,
            None => 0,
        };

        retry_in
    }
}

impl<H: Hardware> Work for Domain<H> {
    /// Retries the reset. Takes the reflck and keeps it during the reset.
    fn run(&self) -> Option<u32> {
        let mut members = self.members.lock();

        // A member was claimed after the work had begun.
        if members.failed == 0 {
            return None;
        }
        // Those may have left.
        let Some(due) = members.first_due() else {
            members.failed = 0;
            return None;
        };

        let retry_in = self.reset_unused(&mut members, &due.hardware);
        members.publish();

        retry_in
    }
}
