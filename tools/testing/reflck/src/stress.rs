// SPDX-License-Identifier: GPL-2.0

//! Threads that open, close, join and leave without regard for each other, on hardware that
//! asserts the reflck's invariants.

use crate::{
    bindings::work::run_next,
    fake::{
        at,
        bus, //
    },
    reflck::{
        Address,
        Event,
        Hardware,
        Membership,
        Owned,
        Registry,
        ResetScope,
        Unused, //
    },
};
use kernel::{
    alloc::{
        live,
        Ledger, //
    },
    prelude::*,
    sync::{
        shake,
        Arc, //
    },
};
use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{
        self,
        atomic::{
            AtomicBool,
            AtomicUsize,
            Ordering::SeqCst, //
        },
        mpsc::{
            channel,
            RecvTimeoutError, //
        },
    },
    thread,
    time::Duration,
};

const ROUNDS: usize = 1000;

/// Functions that stay on the bus, each with a thread that uses it. One more joins and leaves.
const RESIDENTS: usize = 3;

/// A test that takes this long will not end: it has come to a deadlock.
const LIMIT: Duration = Duration::from_secs(300);

thread_local! {
    /// How many times this thread has been asked for a reset, or told that it is deferred.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// A bus that knows what its functions are used for.
#[derive(Default)]
struct Bus {
    /// By function number: the function may be in use. Set before it is opened, and cleared after
    /// it has been released.
    may_be_used: [AtomicBool; RESIDENTS + 1],
    is_resetting: AtomicBool,
    attempts: AtomicUsize,
    resets: AtomicUsize,
    hot_resets: AtomicUsize,
    /// Of so many resets one fails, if not 0.
    failing: usize,
    /// Whether it fails for a reason that may pass.
    passes: bool,
}

struct Function {
    number: usize,
    bus: sync::Arc<Bus>,
    /// The function is in use. Set after it has been opened, and cleared before it is released.
    is_used: AtomicBool,
    /// It is opened or closed. Set after it has been claimed for that, and cleared before it settles.
    is_in_transit: AtomicBool,
    /// Whether it is dirty, as long as it is not in use.
    is_dirty: AtomicBool,
}

impl Function {
    fn new(number: usize, bus: &sync::Arc<Bus>) -> Self {
        Self {
            number,
            bus: bus.clone(),
            is_used: AtomicBool::new(false),
            is_in_transit: AtomicBool::new(false),
            is_dirty: AtomicBool::new(false),
        }
    }
}

impl Hardware for Function {
    type Context = ();

    type Failure = Error;

    fn address(&self) -> Address {
        at(1, 0, self.number as u8)
    }

    fn reset_unused(&self, _: &ResetScope, unused: &Unused<'_, Self>) -> Result {
        CALLS.set(CALLS.get() + 1);
        if thread::panicking() {
            // What a test that has failed drops comes here too, and one panic is enough.
            return Err(EIO);
        }
        assert!(!self.bus.is_resetting.swap(true, SeqCst), "two resets");
        for _ in 0..10 {
            for function in unused.iter() {
                assert!(!function.is_used.load(SeqCst), "reset while in use");
            }
            thread::yield_now();
        }
        assert!(
            unused.iter().any(|f| f.is_dirty.load(SeqCst)),
            "reset of a clean bus"
        );

        let attempt = self.bus.attempts.fetch_add(1, SeqCst) + 1;
        let fails = self.bus.failing != 0 && attempt % self.bus.failing == 0;
        if !fails {
            self.bus.resets.fetch_add(1, SeqCst);
            for function in unused.iter() {
                function.is_dirty.store(false, SeqCst);
            }
        }
        self.bus.is_resetting.store(false, SeqCst);

        match (fails, self.bus.passes) {
            (false, _) => Ok(()),
            (true, false) => Err(EIO),
            (true, true) => Err(EAGAIN),
        }
    }

    fn reset_owned(&self, _: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        assert!(!self.bus.is_resetting.swap(true, SeqCst), "two resets");
        thread::yield_now();
        self.bus.resets.fetch_add(1, SeqCst);
        self.bus.hot_resets.fetch_add(1, SeqCst);
        for function in owned.iter() {
            assert!(
                !function.is_in_transit.load(SeqCst),
                "hot reset while in transit"
            );
            function.is_dirty.store(false, SeqCst);
        }
        self.bus.is_resetting.store(false, SeqCst);

        Ok(())
    }

    fn shares_iommu_group(&self, _: &Self) -> bool {
        true
    }

    fn notify(&self, _: &ResetScope, event: Event<'_, Self>) {
        let Event::Deferred { user } = event else {
            return;
        };
        CALLS.set(CALLS.get() + 1);
        if thread::panicking() {
            return;
        }
        assert_ne!(user, self.address(), "deferred for its own sake");
        assert!(
            self.bus.may_be_used[usize::from(user.devfn)].load(SeqCst),
            "deferred for a function that is not in use"
        );
    }
}

/// Pseudo-random numbers, the same ones in every run.
struct Dice(u32);

impl Dice {
    /// Returns true once in `sides` times.
    fn roll(&mut self, sides: u32) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;

        self.0 % sides == 0
    }

    fn pause(&mut self) {
        if self.roll(4) {
            thread::sleep(Duration::from_micros(20));
        }
    }
}

/// Opens the function and closes it, or fails to open it, and leaves it dirty or not.
fn use_once(member: &Membership<Function>, dice: &mut Dice) {
    let function = member.hardware();
    let bus = &function.bus;

    bus.may_be_used[function.number].store(true, SeqCst);
    let opening = member.open().unwrap();
    function.is_used.store(true, SeqCst);
    function.is_in_transit.store(true, SeqCst);
    assert!(!bus.is_resetting.load(SeqCst), "opened during a reset");
    dice.pause();
    function.is_in_transit.store(false, SeqCst);

    if dice.roll(4) {
        let is_dirty = function.is_dirty.load(SeqCst);
        function.is_used.store(false, SeqCst);
        release(is_dirty, || drop(opening));
    } else {
        opening.succeed(true);
        if dice.roll(3) {
            member.reset_owned(|_, _| true).unwrap();
        }
        dice.pause();
        let closing = member.close().unwrap();
        function.is_in_transit.store(true, SeqCst);
        dice.pause();
        assert!(!bus.is_resetting.load(SeqCst), "a reset while in use");

        let is_dropped = dice.roll(8);
        let is_dirty = is_dropped || dice.roll(2);
        function.is_dirty.store(is_dirty, SeqCst);
        function.is_used.store(false, SeqCst);
        function.is_in_transit.store(false, SeqCst);
        if is_dropped {
            release(is_dirty, || drop(closing));
        } else {
            release(is_dirty, || closing.settle(is_dirty));
        }
    }
    bus.may_be_used[function.number].store(false, SeqCst);
}

/// Asserts that a release which leaves something dirty has it reset or deferred, and once.
fn release(is_dirty: bool, release: impl FnOnce()) {
    CALLS.set(0);
    release();

    if is_dirty {
        assert_eq!(CALLS.get(), 1, "dirty, and neither reset nor deferred");
    } else {
        assert!(CALLS.get() <= 1, "more than one reset in a release");
    }
}

/// Calls `f` in a thread, and fails if it does not come to an end.
fn within_limit(f: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        f();
    });

    // Nothing is ever sent: the end of the thread, whatever it is, ends this.
    if is_done.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
        panic!("deadlock: no end after {LIMIT:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Asserts that the domain is listed as its functions are.
#[track_caller]
fn assert_listed(registry: &Registry<Function>, bus: &Bus, members: &[Membership<Function>]) {
    let mut expected = format!("bus 0000:01 resets {}\n", bus.resets.load(SeqCst));
    for function in members.iter().map(Membership::hardware) {
        let is_dirty = function.is_dirty.load(SeqCst);
        let dirty = if is_dirty { "dirty" } else { "clean" };
        expected += &format!("  {} idle {dirty}\n", function.address());
    }

    assert_eq!(registry.to_string(), expected);
}

/// Opens and closes functions of one bus all at the same time, while another one joins and leaves.
fn one_bus(failing: usize, passes: bool) {
    let registry = Registry::new().unwrap();
    let shared_bus = sync::Arc::new(Bus {
        failing,
        passes,
        ..Bus::default()
    });
    let join = |number| -> Membership<Function> {
        registry
            .join(bus(1), Function::new(number, &shared_bus))
            .unwrap()
    };
    let members: Vec<_> = (0..RESIDENTS).map(join).collect();

    thread::scope(|scope| {
        for (i, member) in members.iter().enumerate() {
            let mut dice = Dice(0x9e37_79b9 + i as u32);
            scope.spawn(move || {
                shake(dice.0);
                for _ in 0..ROUNDS {
                    use_once(member, &mut dice);
                    if dice.roll(4) {
                        run_next();
                    }
                }
                while run_next().is_some() {}
            });
        }
        scope.spawn(|| {
            let mut dice = Dice(0x2545_f491);
            shake(dice.0);
            for _ in 0..ROUNDS / 4 {
                let guest = join(RESIDENTS);
                while dice.roll(2) {
                    use_once(&guest, &mut dice);
                }
            }
            while run_next().is_some() {}
        });
    });

    assert!(shared_bus.attempts.load(SeqCst) > 0);
    assert!(shared_bus.hot_resets.load(SeqCst) > 0);
    assert_listed(&registry, &shared_bus, &members);
    if failing == 0 || passes {
        for member in &members {
            assert!(!member.hardware().is_dirty.load(SeqCst), "never reset");
        }
    } else {
        let done = shared_bus.resets.load(SeqCst) - shared_bus.hot_resets.load(SeqCst);
        assert!(shared_bus.attempts.load(SeqCst) > done);
    }
}

#[test]
fn one_bus_whose_resets_succeed() {
    within_limit(|| one_bus(0, false));
}

#[test]
fn one_bus_whose_resets_fail_sometimes() {
    within_limit(|| one_bus(3, false));
}

#[test]
fn one_bus_whose_resets_fail_for_now() {
    within_limit(|| one_bus(3, true));
}

#[test]
fn many_threads_want_one_function() {
    within_limit(|| {
        let registry = Registry::new().unwrap();
        let shared_bus = sync::Arc::new(Bus::default());
        let function = Function::new(0, &shared_bus);
        let member = &registry.join(bus(1), function).unwrap();
        let has_owner = &AtomicBool::new(false);
        let opened = &AtomicUsize::new(0);

        thread::scope(|scope| {
            for i in 0..RESIDENTS {
                let mut dice = Dice(0x9e37_79b9 + i as u32);
                scope.spawn(move || {
                    shake(dice.0);
                    for _ in 0..ROUNDS {
                        let Ok(opening) = member.open() else {
                            dice.pause();
                            continue;
                        };
                        assert!(!has_owner.swap(true, SeqCst), "two owners");
                        dice.pause();
                        opening.succeed(true);
                        opened.fetch_add(1, SeqCst);
                        let closing = member.close().unwrap();
                        has_owner.store(false, SeqCst);
                        closing.settle(false);
                    }
                });
            }
        });

        assert!(opened.load(SeqCst) > 0);
        assert_listed(&registry, &shared_bus, std::slice::from_ref(member));
    });
}

/// Asserts that no domain and no function is listed twice.
fn assert_each_listed_once(text: &str) {
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let name = line.trim_start().split(" resets ").next();
        assert!(seen.insert(name), "listed twice:\n{text}");
    }
}

#[test]
fn domains_come_and_go() {
    within_limit(|| {
        let registry: Arc<Registry<Function>> = Registry::new().unwrap();
        let shared_bus = sync::Arc::new(Bus::default());
        let ledger = Ledger::current();

        thread::scope(|scope| {
            for number in 0..RESIDENTS {
                let (registry, shared_bus, ledger) = (&registry, &shared_bus, &ledger);
                scope.spawn(move || {
                    ledger.share();
                    shake(0x9e37_79b9 + number as u32);
                    let address = at(1, 0, number as u8);
                    let expected = format!("  {address} idle clean");
                    for _ in 0..ROUNDS {
                        let function = Function::new(number, shared_bus);
                        let member = registry.join(bus(1), function).unwrap();
                        let text = registry.to_string();
                        assert_each_listed_once(&text);
                        assert!(text.lines().any(|line| line == expected));
                        drop(member);
                        assert!(!registry.to_string().contains(&expected));
                    }
                });
            }
        });

        assert_eq!(registry.to_string(), "");
        assert_eq!(live(), 1);
    });
}
