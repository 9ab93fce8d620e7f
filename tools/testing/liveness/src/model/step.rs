// SPDX-License-Identifier: GPL-2.0

//! A step of a model: what one section of code that holds the reflck does to the state.

use super::*;

pub struct Step<'a> {
    pub(super) scene: &'a Scene,
    pub label: Label,
    /// The state before the step, and then after it.
    pub s: State,
    /// The tracepoints' events, with the reflck held.
    pub events: Vec<(usize, String)>,
    pub(super) reset: Reset,
    pub(super) has_reset: bool,
}

impl Step<'_> {
    /// `begin_transit` or `reset_owned`, up to its wait or its end.
    pub(super) fn call(&mut self, member: usize, purpose: Purpose) {
        let waits = self.scene.waits(&self.s, member, purpose);
        let last = self.s.members.iter().map(|it| it.turn).max();
        let it = &mut self.s.members[member];
        if waits {
            if purpose == HotReset {
                self.s.waiting += u8::from(it.wait.is_none());
            } else if it.turn == 0 {
                it.turn = last.unwrap_or(0) + 1;
            }
            it.wait = Some((purpose, false));
            return;
        }
        self.end_wait(member);
        if purpose != HotReset {
            self.begin(member, purpose);
        } else if self.scene.owns_all(&self.s, member) {
            self.trace(member, || "claim hotreset".into());
            if self.reset(true).is_ok() {
                self.reset_done();
            }
        }
    }

    /// `begin_transit` after its wait, with `reset_before_open`.
    fn begin(&mut self, member: usize, purpose: Purpose) {
        let is_bare = self.scene.functions[member].0 != Some(true);
        let is_due = self.s.members[member].is_dirty && is_bare;
        if purpose == Open && is_due && !self.s.is_used() {
            self.attempt_reset();
        }
        let it = &mut self.s.members[member];
        match purpose {
            Open => it.claim = Opening,
            Close => it.claim = Closing,
            _ => it.rebinds = Some(purpose),
        }
        self.trace(member, || format!("claim {purpose:?}").to_lowercase());
        if self.s.failed > 0 && purpose != Unbind {
            (self.s.failed, self.s.is_pending) = (0, false);
            self.s.owed = !self.scene.is(RetryLostToClaim);
        }
    }

    /// Ends the wait of a user, and its turn.
    pub(super) fn end_wait(&mut self, member: usize) {
        let it = &mut self.s.members[member];
        let (wait, turn) = (it.wait.take(), std::mem::take(&mut it.turn));
        if turn > 0 {
            self.s.members.iter_mut().for_each(|it| it.turn -= u8::from(it.turn > turn));
            self.notify_all(NoTurns);
        } else if wait.is_some() {
            self.s.waiting -= 1;
            self.notify_all(NoWakeUpAfterHotReset);
        }
    }

    pub(super) fn settle(&mut self, member: usize, claim: Claim, dirty: bool) {
        let it = &mut self.s.members[member];
        self.s.is_given_up &= it.is_dirty || !dirty;
        (it.claim, it.is_dirty) = (claim, dirty);
        self.end_transit(member);
        if claim == Idle && self.s.is_due() {
            self.attempt_reset();
        }
    }

    pub(super) fn rebind(&mut self, member: usize, is_bound: bool) {
        let it = &mut self.s.members[member];
        (it.is_bound, it.rebinds) = (is_bound, None);
        self.end_transit(member);
        if !is_bound && self.s.owed && self.s.is_due() && !self.s.is_used() {
            self.attempt_reset();
        }
    }

    fn end_transit(&mut self, member: usize) {
        let Member { claim, is_bound, rebinds, is_dirty, .. } = self.s.members[member];
        let flags = [claim == Claim::Open, is_bound || rebinds.is_some(), is_dirty].map(u8::from);
        self.trace(member, || format!("settle {flags:?}"));
        self.notify_all(NoWakeUpAfterSettling);
    }

    /// Resets the domain if it is unused, and schedules a retry if one is due.
    pub(super) fn attempt_reset(&mut self) {
        let retries = if self.scene.is_replay { 8 } else { 2 };
        let failed = std::mem::take(&mut self.s.failed);
        (self.s.owed, self.s.is_given_up) = (self.s.is_used(), false);
        if self.s.owed {
            return;
        }
        match self.reset(false) {
            Ok(()) => self.reset_done(),
            Err(true) if failed < retries => {
                self.s.failed = failed + 1;
                self.s.is_pending |= !self.scene.is(NoRetry);
            }
            Err(_) => self.s.is_given_up = true,
        }
    }

    fn reset(&mut self, hot: bool) -> Result<(), bool> {
        let (result, is_seen) = self.reset;
        self.has_reset = true;
        if is_seen {
            // The domain is reset for any member that is dirty.
            self.trace(0, || format!("reset_begin {}", u8::from(hot)));
            self.trace(0, || format!("reset_end {result:?}"));
        }
        result
    }

    fn reset_done(&mut self) {
        (self.s.owed, self.s.is_given_up) = (false, false);
        self.s.members.iter_mut().for_each(|it| it.is_dirty = false);
    }

    /// `begin_chore`
    pub(super) fn clean(&mut self, member: usize, is_close: bool) {
        self.s.members[member].claim = Cleaning(is_close, 0);
        self.trace(member, || "claim clean".into());
    }

    fn notify_all(&mut self, unless: Mutant) {
        let waits = self.s.members.iter_mut().filter_map(|it| it.wait.as_mut());
        waits.for_each(|(_, is_awake)| *is_awake |= !self.scene.is(unless));
    }

    fn trace(&mut self, member: usize, event: impl Fn() -> String) {
        if self.scene.is_replay {
            self.events.push((member, event()));
        }
    }
}
