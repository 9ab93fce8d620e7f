// SPDX-License-Identifier: GPL-2.0

//! A reset domain: its lock, and the resets that it is owed.

use super::{
    member::{
        Binding,
        Claim,
        Member,
        Members,
        State,
        Unused, //
    },
    Event,
    Failure,
    Hardware,
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
        Mutex, //
    }, //
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
    /// Notified when a member leaves transit.
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

    /// Changes the state of `member` with `change`, which takes it out of transit.
    ///
    /// If the domain is now unused and any member is dirty, resets it. Takes the reflck and keeps
    /// it during the reset, so that no member can be claimed before.
    pub(super) fn settle(
        self: &DelayedWork<Self>,
        member: &Member<H>,
        change: impl FnOnce(&mut State<H::Context>),
    ) {
        let mut members = self.members.lock();
        let state = member.state.access_mut(&mut members);

        change(state);
        member.hardware.notify(
            &self.scope,
            Event::Settle {
                open: state.claim == Claim::Open,
                bound: state.binding != Binding::Unbound,
                dirty: state.dirty,
            },
        );
        let is_used = state.is_used();
        self.settled.notify_all();

        // A member that is still in use settles again later. A private domain has no reset but the
        // function's own.
        if is_used || self.scope.is_private() || members.count_dirty() == 0 {
            return;
        }

        if let Some(ms) = self.reset_unused(&mut members, &member.hardware) {
            self.schedule(ms);
        }
    }

    /// Resets the domain if it is unused. Returns the delay before a retry, if one is due.
    fn reset_unused(&self, members: &mut Members<H>, hardware: &H) -> Option<u32> {
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
            members.failed = 0;
            return None;
        };

        let retry_in = match failure.is_transient() {
            true => RETRY_DELAYS_MS.get(members.failed as usize).copied(),
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
            Some(_) => members.failed + 1,
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
        // The dirty members may have left.
        let Some(dirty) = members.first_dirty() else {
            members.failed = 0;
            return None;
        };

        self.reset_unused(&mut members, &dirty.hardware)
    }
}
