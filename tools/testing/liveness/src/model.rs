// SPDX-License-Identifier: GPL-2.0

//! A reset domain as in `reflck/`, and the tasks around it.
//!
//! [`Scene::next`] returns the steps from a state. Each is a section of code that holds the reflck,
//! and ends where that is dropped or a task waits.

use Claim::{Cleaning, Closing, Idle, Opening};
use Kind::{Fair, Free, Serve};
use Mutant::*;
use Purpose::{Attach, Bind, Close, Detach, HotReset, Open, Unbind};

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Purpose {
    Open,
    Close,
    Bind,
    Unbind,
    Attach,
    Detach,
    HotReset,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Claim {
    #[default]
    Idle,
    Opening,
    Open,
    Closing,
    /// Whether it finishes a close, and the attempts that found the device lock held.
    Cleaning(bool, u8),
}

/// A function, and its user.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Member {
    pub claim: Claim,
    pub is_bound: bool,
    pub rebinds: Option<Purpose>,
    pub is_dirty: bool,
    /// The user is in `Domain::wait`, and whether it was notified.
    pub wait: Option<(Purpose, bool)>,
    /// The rank of its turn, from 1 on, if it has one.
    pub turn: u8,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct State {
    pub members: Vec<Member>,
    failed: u8,
    owed: bool,
    waiting: u8,
    /// The retry is scheduled.
    is_pending: bool,
    /// An attempt failed and there is no other one, as the log says, or a write to `reset` fails.
    pub is_given_up: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    None,
    ByGroup,
    /// By an iommufd context.
    By(u8),
    /// The same, and the user asks for hot resets.
    HotResets(u8),
    Any,
}

/// Whether a function can be reset alone, by work, if that is known; its IOMMU group; and its user.
#[derive(Clone, Copy, Debug)]
pub struct Function(pub Option<bool>, pub usize, pub User);

/// A bug in the model, for its tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mutant {
    NoWakeUpAfterSettling,
    NoWakeUpAfterHotReset,
    NoTurns,
    NoRetry,
    RetryLostToClaim,
    CleaningForEver,
    OvertakesHotReset,
}

/// The functions and tasks that take part.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    pub name: &'static str,
    pub functions: Vec<Function>,
    /// Root writes to the file `reset` of these members.
    pub root: Vec<usize>,
    pub signals: bool,
    pub serialized: bool,
    /// Steps have the events of a trace, which does not show waits and some attempts to reset.
    pub is_replay: bool,
    pub mutant: Option<Mutant>,
}

/// A step is fair if the task is in a system call or in work, and must go on. It serves a user if it
/// ends the wait.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    Free,
    Fair,
    Serve,
}

/// A step: by a task, which is the user of a member, its work or another one.
pub type Label = (usize, Kind, &'static str, Option<Purpose>);

const WORK: usize = 8;
const RETRY: usize = 16;
const ROOT: usize = 17;

/// The result of an attempt to reset the domain, or whether it fails for a passing reason; and
/// whether a trace shows it.
type Reset = (Result<(), bool>, bool);

impl Member {
    pub fn is_used(&self) -> bool {
        self.claim != Idle || self.rebinds.is_some()
    }

    pub fn is_idle(&self) -> bool {
        !self.is_used() && !self.is_bound
    }

    pub fn is_cleaning(&self) -> bool {
        matches!(self.claim, Cleaning(..))
    }

    fn is_opening_or_closing(&self) -> bool {
        !matches!(self.claim, Idle | Claim::Open)
    }
}

impl State {
    pub fn is_used(&self) -> bool {
        self.members.iter().any(Member::is_used)
    }

    pub fn is_due(&self) -> bool {
        self.members.iter().any(|it| it.is_dirty)
    }

    fn is_in_transit(&self) -> bool {
        self.members.iter().any(|it| it.is_opening_or_closing() || it.rebinds.is_some())
    }
}

impl Scene {
    pub fn start(&self) -> State {
        let members = vec![Member::default(); self.functions.len()];
        State { members, ..State::default() }
    }

    pub fn next(&self, s: &State) -> Vec<Step<'_>> {
        let seen = [Ok(()), Err(true), Err(false)].map(|result| (result, true));
        let unseen = [Err(true), Err(false)].map(|result| (result, false));
        let mut steps = Vec::new();
        let mut add = |may: bool, label: Label, change: &dyn Fn(&mut Step<'_>)| {
            let resets =
                seen.into_iter().chain(unseen).filter(|it| may && (it.1 || self.is_replay));
            for reset in resets {
                let (scene, s, events, has_reset) = (self, s.clone(), Vec::new(), false);
                let mut step = Step { scene, label, s, events, reset, has_reset };
                change(&mut step);
                let is_only = !step.has_reset;
                steps.push(step);
                if is_only {
                    break;
                }
            }
        };
        add(s.is_pending, (RETRY, Fair, "retries", None), &|w| {
            w.s.is_pending = false;
            match w.s.failed > 0 && w.s.is_due() {
                true => w.attempt_reset(),
                false => w.s.failed = 0,
            }
        });
        for (n, it) in s.members.iter().enumerate() {
            let Function(alone, _, user) = self.functions[n];
            let (is_alone, is_bare) = (alone != Some(false), alone != Some(true));
            // A user who has bound the function opens or unbinds it.
            let kind = match it.wait {
                Some((purpose, _)) if self.waits(s, n, purpose) => Fair,
                Some(_) => Serve,
                None if it.is_bound && it.claim != Claim::Open => Fair,
                None => Free,
            };
            let mut call = |may: bool, purpose| {
                let may = may && !(self.is_replay && self.waits(s, n, purpose));
                add(may, (n, kind, "calls", Some(purpose)), &|w| w.call(n, purpose));
            };
            match (it.wait, it.rebinds, it.claim) {
                (Some((purpose, is_awake)), ..) => {
                    call(is_awake, purpose);
                    let may = self.signals && matches!(purpose, Open | Bind | Attach | HotReset);
                    add(may, (n, Free, "is interrupted", Some(purpose)), &|w| w.end_wait(n));
                }
                (_, Some(purpose), _) => {
                    let may_end = matches!(purpose, Bind | Unbind);
                    add(purpose != Unbind, (n, Fair, "is bound", None), &|w| w.rebind(n, true));
                    add(may_end, (n, Fair, "is unbound", None), &|w| w.rebind(n, false));
                }
                (_, _, Claim::Open) => {
                    call(true, Close);
                    call(it.is_bound, Attach);
                    call(it.is_bound && self.is_replay, Detach);
                    call(matches!(user, User::HotResets(_) | User::Any), HotReset);
                }
                (_, _, Idle | Cleaning(..)) => {
                    call(!it.is_bound && !matches!(user, User::None | User::ByGroup), Bind);
                    call(it.is_bound || matches!(user, User::ByGroup | User::Any), Open);
                    call(it.is_bound, Unbind);
                }
                (_, _, Opening | Closing) => (),
            }
            let task = if it.is_cleaning() { n + WORK } else { n };
            let mut settle = |may, what, claim, dirty| {
                add(may, (task, Fair, what, None), &|w| w.settle(n, claim, dirty));
            };
            match it.claim {
                Opening => {
                    settle(!it.is_dirty || is_alone, "is open", Claim::Open, false);
                    settle(it.is_dirty && is_bare, "is open and dirty", Claim::Open, true);
                    settle(true, "fails to open", Idle, it.is_dirty);
                }
                Closing => {
                    settle(true, "is closed and dirty", Idle, true);
                    settle(is_alone, "is closed", Idle, false);
                    add(is_alone, (n, Fair, "is closed later", None), &|w| w.clean(n, true));
                }
                Cleaning(is_close, failed) => {
                    settle(true, "has reset", Idle, false);
                    settle(true, "ends without a reset", Idle, it.is_dirty || is_close);
                    let again = Cleaning(is_close, failed + u8::from(!self.is(CleaningForEver)));
                    let label = (task, Fair, "finds the device lock held", None);
                    let may = failed < 1 && !self.is_replay;
                    add(may, label, &|w| w.s.members[n].claim = again);
                }
                Idle | Claim::Open => (),
            }
            // `reset_now`, or the first reset of a function.
            let may_reset = self.root.contains(&n) && it.is_idle() && s.waiting == 0;
            let may_clean = is_alone && !(self.serialized && s.is_in_transit());
            add(may_reset && may_clean, (ROOT, Free, "cleans", None), &|w| w.clean(n, false));
            add(may_reset && is_bare && !s.is_used(), (ROOT, Free, "resets", None), &|w| {
                w.s.failed = 0;
                w.attempt_reset();
                w.s.is_given_up |= w.s.is_due();
            });
        }
        steps
    }

    /// Returns whether `begin_transit` or `reset_owned` waits.
    pub fn waits(&self, s: &State, member: usize, purpose: Purpose) -> bool {
        let shares_group = |other: usize| self.functions[other].1 == self.functions[member].1;
        let is_free = |it: &Member| !it.is_used() || it.is_cleaning();
        let needs_domain = s.members[member].is_dirty
            && self.functions[member].0 == Some(false)
            && s.members.iter().all(is_free);
        let excludes = |(other, it): (usize, &Member)| match purpose {
            Open | Bind | Attach if other == member => it.is_cleaning(),
            _ if other == member => false,
            Open if needs_domain && it.is_cleaning() => true,
            Open | Close if self.serialized && it.is_opening_or_closing() => true,
            Open | Close => it.rebinds.is_some() && shares_group(other),
            Attach => it.is_opening_or_closing() && shares_group(other),
            Bind => it.is_cleaning() && shares_group(other),
            Unbind | Detach | HotReset => false,
        };
        let is_rebinding_group_of = |member: usize| {
            let mut pairs = self.functions.iter().zip(&s.members);
            pairs.any(|it| it.0 .1 == self.functions[member].1 && it.1.rebinds.is_some())
        };
        let turn = s.members[member].turn;
        let is_reserved = |(other, it): (usize, &Member)| {
            let is_earlier = it.turn > 0 && (turn == 0 || it.turn < turn);
            match (purpose, it.wait) {
                _ if !is_earlier || self.is(NoTurns) => false,
                (Open, Some((Open | Close, _))) => self.serialized && !is_rebinding_group_of(other),
                (Open, Some((Bind | Attach, _))) => shares_group(other),
                (Bind | Attach | Detach, Some((Open | Close, _))) => shares_group(other),
                _ => false,
            }
        };
        match purpose {
            HotReset => s.is_in_transit() && self.owns_all(s, member),
            _ if s.waiting > 0 && !self.is(OvertakesHotReset) => true,
            _ => s.members.iter().enumerate().any(|it| excludes(it) || is_reserved(it)),
        }
    }

    /// Returns whether the user of a member owns all of them, by its context.
    fn owns_all(&self, s: &State, member: usize) -> bool {
        let User::HotResets(context) = self.functions[member].2 else { return true };
        let pairs = || self.functions.iter().zip(&s.members);
        let is_bound = |it: &Member| it.is_bound || it.rebinds.is_some();
        let is_mine = |(function, it): (&Function, &Member)| {
            is_bound(it) && [User::By(context), User::HotResets(context)].contains(&function.2)
        };
        let has_group = |group| pairs().any(|it| it.0 .1 == group && is_mine(it));
        pairs().all(|it| is_mine(it) || !is_bound(it.1) && has_group(it.0 .1))
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

pub struct Step<'a> {
    scene: &'a Scene,
    pub label: Label,
    /// The state before the step, and then after it.
    pub s: State,
    /// The tracepoints' events, with the reflck held.
    pub events: Vec<(usize, String)>,
    reset: Reset,
    has_reset: bool,
}

impl Step<'_> {
    /// `begin_transit` or `reset_owned`, up to its wait or its end.
    fn call(&mut self, member: usize, purpose: Purpose) {
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
    fn end_wait(&mut self, member: usize) {
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

    fn settle(&mut self, member: usize, claim: Claim, dirty: bool) {
        let it = &mut self.s.members[member];
        self.s.is_given_up &= it.is_dirty || !dirty;
        (it.claim, it.is_dirty) = (claim, dirty);
        self.end_transit(member);
        if claim == Idle && self.s.is_due() {
            self.attempt_reset();
        }
    }

    fn rebind(&mut self, member: usize, is_bound: bool) {
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
    fn attempt_reset(&mut self) {
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
    fn clean(&mut self, member: usize, is_close: bool) {
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
