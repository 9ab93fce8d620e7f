// SPDX-License-Identifier: GPL-2.0

//! A bus whose functions assert the invariants of the reflck whenever it asks something of them.
//!
//! What they know of themselves is in std's locks, which loom does not see, so that it does not
//! multiply the interleavings; that a reset takes time, loom does see.

use crate::{
    reflck::{
        Address,
        ResetScope, //
    },
    reflck::{
        Binding,
        Event,
        Hardware,
        Membership,
        Owned,
        Registry,
        Unused, //
    },
};
use kernel::prelude::*;
use loom::sync::atomic::{
    AtomicBool,
    AtomicUsize,
    Ordering::SeqCst, //
};
use std::{
    cell::Cell,
    sync::{
        Arc,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    thread::panicking,
};

/// The users of iommufd, by their contexts.
pub(crate) const ME: u8 = 1;
pub(crate) const OTHER: u8 = 2;

/// The most functions that a bus has in a model.
const FUNCTIONS: usize = 3;

const SCOPE: ResetScope = ResetScope::Bus { segment: 0, bus: 1 };

loom::thread_local! {
    /// How many times this thread has been asked for a reset, or told that it is deferred.
    static CALLS: Cell<usize> = Cell::new(0);
}

/// What the functions of the bus know.
#[derive(Default)]
struct Facts {
    /// Set after a function has been claimed to be opened, cleared before it is released.
    open: [bool; FUNCTIONS],
    /// Set after a function has been claimed to be opened or closed, cleared before that settles.
    in_transit: [bool; FUNCTIONS],
    /// As `open`, for a function that is bound: to whose context.
    bound: [Option<u8>; FUNCTIONS],
    /// Who asks for a hot reset of all that is bound to the own context.
    asking: [Option<u8>; FUNCTIONS],
    /// Set before a function is opened or bound, cleared after it has been released.
    may_be_used: [bool; FUNCTIONS],
    /// As its user left it.
    dirty: [bool; FUNCTIONS],
    exists: [bool; FUNCTIONS],
    attempts: usize,
    resets: usize,
    /// How many of the next resets fail for now.
    failing: usize,
}

struct Bus {
    facts: Mutex<Facts>,
    is_resetting: AtomicBool,
    group: Group,
}

/// The IOMMU group, which all functions are in.
#[derive(Default)]
struct Group {
    /// Whether anybody attaches it. What is looked at costs interleavings.
    is_watched: bool,
    /// How many functions are being reset.
    resets: AtomicUsize,
    is_attaching: AtomicBool,
}

impl Group {
    /// Has a function reset take its time.
    fn reset_function(&self) {
        if !self.is_watched {
            return;
        }
        self.resets.fetch_add(1, SeqCst);
        assert!(!self.is_attaching.load(SeqCst), "reset while attached");
        self.resets.fetch_sub(1, SeqCst);
    }

    fn attach(&self) {
        self.is_attaching.store(true, SeqCst);
        assert_eq!(self.resets.load(SeqCst), 0, "attached during a reset");
        self.is_attaching.store(false, SeqCst);
    }
}

impl Bus {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a reset take its time, in which the other threads do what they can.
    fn reset(&self) {
        assert!(!self.is_resetting.swap(true, SeqCst), "two resets at once");
        self.is_resetting.store(false, SeqCst);
    }
}

/// A function of the bus.
pub(crate) struct Function {
    number: usize,
    bus: Arc<Bus>,
}

impl Drop for Function {
    fn drop(&mut self) {
        if panicking() {
            return;
        }
        self.bus.facts().exists[self.number] = false;
    }
}

impl Hardware for Function {
    type Context = u8;

    type Failure = Error;

    fn address(&self) -> Address {
        Address {
            segment: 0,
            bus: 1,
            devfn: self.number as u8,
        }
    }

    fn reset_unused(&self, scope: &ResetScope, unused: &Unused<'_, Self>) -> Result {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        assert_eq!(*scope, SCOPE);
        self.bus.reset();

        let mut facts = self.bus.facts();
        for function in unused.iter() {
            let number = function.number;
            assert!(
                !facts.open[number] && facts.bound[number].is_none(),
                "reset while in use"
            );
            assert!(facts.exists[number], "a member has left during a reset");
        }
        assert_eq!(
            unused.count_dirty(),
            unused.iter().filter(|f| facts.dirty[f.number]).count(),
            "dirty members"
        );
        assert!(unused.count_dirty() > 0, "reset of a clean bus");
        facts.attempts += 1;
        if facts.failing > 0 {
            facts.failing -= 1;
            return Err(EAGAIN);
        }
        facts.resets += 1;
        for function in unused.iter() {
            facts.dirty[function.number] = false;
        }

        Ok(())
    }

    fn reset_owned(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        assert_eq!(*scope, SCOPE);
        self.bus.reset();

        let mut facts = self.bus.facts();
        assert!(facts.open[self.number], "hot reset for nobody");
        for function in owned.iter() {
            let number = function.number;
            assert!(!facts.in_transit[number], "hot reset while in transit");
            assert!(facts.exists[number], "a member has left during a reset");
            if let Some(context) = facts.asking[self.number] {
                assert_eq!(facts.bound[number], Some(context), "hot reset of others'");
            }
            facts.dirty[number] = false;
        }
        facts.resets += 1;

        Ok(())
    }

    fn shares_iommu_group(&self, _: &Self) -> bool {
        true
    }

    fn notify(&self, _: &ResetScope, event: Event<'_, Self>) {
        let Event::Deferred { user } = event else {
            return;
        };
        CALLS.with(|calls| calls.set(calls.get() + 1));
        assert_ne!(user, self.address(), "deferred for its own sake");
        assert!(
            self.bus.facts().may_be_used[usize::from(user.devfn)],
            "deferred for a function that is not in use"
        );
    }
}

/// A registry, and the bus whose functions join it.
pub(crate) struct Machine {
    registry: kernel::sync::Arc<Registry<Function>>,
    bus: Arc<Bus>,
}

impl Clone for Machine {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            bus: self.bus.clone(),
        }
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(Group::default())
    }

    /// One whose functions are attached, too.
    pub(crate) fn with_iommu_group() -> Self {
        Self::with(Group {
            is_watched: true,
            ..Group::default()
        })
    }

    fn with(group: Group) -> Self {
        Self {
            registry: Registry::new().unwrap(),
            bus: Arc::new(Bus {
                facts: Mutex::default(),
                is_resetting: AtomicBool::new(false),
                group,
            }),
        }
    }

    /// Makes a function that is a member from now on.
    pub(crate) fn join(&self, number: usize) -> Member {
        self.bus.facts().exists[number] = true;
        let function = Function {
            number,
            bus: self.bus.clone(),
        };

        Member(self.registry.join(SCOPE, function).unwrap())
    }

    /// Lets the next `count` resets fail for now.
    pub(crate) fn fail_resets(&self, count: usize) {
        self.bus.facts().failing = count;
    }

    pub(crate) fn attempts(&self) -> usize {
        self.bus.facts().attempts
    }

    pub(crate) fn resets(&self) -> usize {
        self.bus.facts().resets
    }

    /// Returns the list of domains.
    pub(crate) fn show(&self) -> String {
        self.registry.to_string()
    }

    /// Asserts that there is one domain, in which nothing is dirty, in use or due.
    pub(crate) fn assert_clean(&self, members: &[&Member]) {
        let mut expected = format!("bus 0000:01 resets {}\n", self.resets());
        for member in members {
            expected += &format!("  {} idle clean\n", member.0.hardware().address());
        }

        assert_eq!(self.show(), expected);
    }

    /// Asserts that there is no domain and no function any more.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.show(), "");
        assert_eq!(self.bus.facts().exists, [false; FUNCTIONS]);
    }
}

/// A member, and who has it.
pub(crate) struct Member(Membership<Function>);

impl Member {
    fn number(&self) -> usize {
        self.0.hardware().number
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.hardware().bus.facts()
    }

    fn group(&self) -> &Group {
        &self.0.hardware().bus.group
    }

    fn not_during_a_reset(&self) {
        let resetting = self.0.hardware().bus.is_resetting.load(SeqCst);
        assert!(!resetting, "claimed during a reset");
    }

    /// Does what is done to a function while it is opening or closing.
    fn pass_through(&self) {
        self.facts().in_transit[self.number()] = true;
        self.not_during_a_reset();
        self.group().reset_function();
        self.facts().in_transit[self.number()] = false;
    }

    /// Opens the function, which nobody else has.
    pub(crate) fn open(&self) {
        assert!(self.try_open());
    }

    /// Opens the function unless somebody has it.
    pub(crate) fn try_open(&self) -> bool {
        self.facts().may_be_used[self.number()] = true;
        let Ok(opening) = self.0.open() else {
            return false;
        };
        let was_used = std::mem::replace(&mut self.facts().open[self.number()], true);
        assert!(!was_used, "two users");
        self.pass_through();
        opening.succeed(true);

        true
    }

    /// Opens the function in vain.
    pub(crate) fn fail_to_open(&self) {
        self.facts().may_be_used[self.number()] = true;
        let opening = self.0.open().unwrap();
        self.facts().open[self.number()] = true;
        self.pass_through();

        let dirty = {
            let mut facts = self.facts();
            facts.open[self.number()] = false;
            facts.dirty[self.number()]
        };
        self.release(dirty, || drop(opening));
    }

    /// Closes the function, which is open, and leaves it dirty or not.
    pub(crate) fn close(&self, dirty: bool) {
        let closing = self.0.close().unwrap();
        self.pass_through();
        {
            let mut facts = self.facts();
            facts.open[self.number()] = false;
            facts.dirty[self.number()] = dirty;
        }
        self.release(dirty, || closing.settle(dirty));
    }

    /// Asserts that a release that leaves the function dirty has it reset or deferred, once; but one
    /// that is bound not before it is unbound.
    fn release(&self, dirty: bool, settle: impl FnOnce()) {
        CALLS.with(|calls| calls.set(0));
        settle();

        let calls = CALLS.with(Cell::get);
        let mut facts = self.facts();
        if facts.bound[self.number()].is_some() {
            assert_eq!(calls, 0, "a reset of what is bound");
            return;
        }
        if dirty {
            assert_eq!(calls, 1, "dirty, and neither reset nor deferred");
        } else {
            assert!(calls <= 1, "more than one reset in a release");
        }
        facts.may_be_used[self.number()] = false;
    }

    /// Has iommufd bind the function to `context`.
    pub(crate) fn bind(&self, context: u8) {
        self.facts().may_be_used[self.number()] = true;
        let binding = self.0.bind(context).unwrap();
        self.facts().bound[self.number()] = Some(context);
        self.not_during_a_reset();
        binding.bound(u32::from(context) * 10 + self.number() as u32);
    }

    /// Has iommufd unbind the function, which is closed.
    pub(crate) fn unbind(&self) {
        let unbinding = self.0.unbind().unwrap();
        self.not_during_a_reset();
        let dirty = {
            let mut facts = self.facts();
            facts.bound[self.number()] = None;
            facts.dirty[self.number()]
        };
        self.release(dirty, || drop(unbinding));
    }

    /// Has iommufd attach the function, which is bound.
    pub(crate) fn attach(&self) {
        let attaching = self.0.attach().unwrap();
        self.not_during_a_reset();
        self.group().attach();
        drop(attaching);
    }

    /// Asks for a hot reset for a user who says to have everything.
    pub(crate) fn hot_reset(&self) {
        self.0.reset_owned(|_, _| true).unwrap();
    }

    /// Asks for a hot reset for the user of `context`. Returns whether it was done.
    pub(crate) fn hot_reset_for(&self, context: u8) -> bool {
        self.facts().asking[self.number()] = Some(context);
        let result = self.0.reset_owned(|_, binding| {
            matches!(binding, Binding::Bound(c, _) | Binding::Changing(c) if c == context)
        });
        self.facts().asking[self.number()] = None;
        assert!(matches!(result, Ok(()) | Err(EINVAL)));

        result.is_ok()
    }

    /// Lists what iommufd has of the members; asserts that no ID of `context` is missing.
    pub(crate) fn list_bindings(&self, context: u8) {
        self.0
            .for_each_binding(context, |function, binding| match binding {
                Binding::Changing(c) => assert_ne!(c, context, "an ID is missing"),
                Binding::Bound(c, id) => {
                    assert_eq!(id, u32::from(c) * 10 + function.number as u32, "another ID");
                }
                Binding::Unbound => (),
            });
    }
}
