// SPDX-License-Identifier: GPL-2.0

//! A reset domain as in `reflck/`, and the tasks around it.
//!
//! [`Scene::next`] returns the steps from a state. Each is a section of code that holds the reflck,
//! and ends where that is dropped or a task waits.

use Claim::{Cleaning, Closing, Idle, Opening};
use Kind::{Fair, Free, Serve};
use Mutant::*;
use Purpose::{Attach, Bind, Close, Detach, HotReset, Open, Unbind};

mod step;

pub use step::Step;

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
