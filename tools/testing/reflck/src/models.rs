// SPDX-License-Identifier: GPL-2.0

//! Models: loom runs every interleaving of a few threads that use the functions of one bus.
//!
//! The fake hardware checks the invariants in each of them, and loom finds deadlocks.
//! `LOOM_MAX_PREEMPTIONS` bounds the preemptions per interleaving in models of three threads; those
//! of two are never bounded. `tools/testing/defects/mutants.toml` has bugs for them to find.

use crate::{
    bindings::work::run_next,
    reflck::{
        fake::{
            anyone,
            user_of,
            Fake,
            Machine,
            BUS, //
        },
        Binding,
        Membership, //
    },
};
use kernel::{
    alloc::live,
    prelude::*,
    sync::signals, //
};
#[cfg(loom)]
use loom::thread::{
    spawn,
    JoinHandle, //
};
#[cfg(shuttle)]
use shuttle::thread::{
    spawn,
    JoinHandle, //
};
use std::sync::{
    atomic::{
        AtomicBool,
        AtomicUsize,
        Ordering::SeqCst, //
    },
    Arc,
};

/// Defines a model of so many threads, the main one included.
macro_rules! model {
    ($name:ident, $threads:literal, $body:expr) => {
        #[cfg(loom)]
        #[test]
        fn $name() {
            explore(stringify!($name), $threads, $body);
        }
    };
}

#[cfg(loom)]
mod cleaning;
#[cfg(loom)]
mod hot_resets;
#[cfg(loom)]
mod retries;
#[cfg(shuttle)]
mod schedules;
#[cfg(loom)]
mod turns;

type Member = Membership<Fake>;

/// Two iommufd contexts.
const ME: u8 = 1;
const OTHER: u8 = 2;

/// Runs the interleavings of `body`, and prints their number.
#[cfg(loom)]
fn explore(name: &str, threads: usize, body: fn()) {
    // Takes its bound from LOOM_MAX_PREEMPTIONS.
    let mut builder = loom::model::Builder::new();
    if threads == 2 {
        builder.preemption_bound = None;
    }
    builder.max_branches = 100_000;
    let bound = builder.preemption_bound;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    builder.check(move || {
        counter.fetch_add(1, SeqCst);
        body();
        assert_eq!(live(), 0, "an object outlives its users");
    });

    let bound = bound.map_or(String::new(), |n| format!(" of at most {n} preemptions"));
    println!("model {name}: {} interleavings{bound}", count.load(SeqCst));
}

/// Starts a thread that uses a member and returns it.
fn with(member: Member, f: fn(&Member)) -> JoinHandle<Member> {
    spawn(move || {
        f(&member);
        member
    })
}

fn done<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap()
}

fn two() -> (Machine, Member, Member) {
    Machine::with_two().unwrap()
}

fn three() -> (Machine, Member, Member, Member) {
    let (machine, a, b) = two();
    let c = machine.join(BUS, 2).unwrap();

    (machine, a, b, c)
}

fn run_work() -> JoinHandle<()> {
    spawn(|| while run_next().is_some() {})
}

/// Uses two functions while another thread runs the work that is due.
fn with_work((machine, a, b): (Machine, Member, Member), use_both: fn(&Member, &Member)) {
    let work = run_work();
    use_both(&a, &b);
    done(work);
    end(machine, [a, b]);
}

/// Uses two functions at once, each in a thread. Returns the number of resets.
fn pair(prepare: fn(&Member, &Member), use_a: fn(&Member), use_b: fn(&Member)) -> usize {
    let (machine, a, b) = two();
    prepare(&a, &b);
    let b = with(b, use_b);
    use_a(&a);
    let members = [a, done(b)];
    let resets = machine.resets();
    end(machine, members);

    resets
}

/// Uses three functions at once.
fn trio(prepare: fn(&Member, &Member), use_a: fn(&Member), use_b: fn(&Member), use_c: fn(&Member)) {
    let (machine, a, b, c) = three();
    prepare(&a, &b);
    let b = with(b, use_b);
    let c = with(c, use_c);
    use_a(&a);
    end(machine, [a, done(b), done(c)]);
}

/// Ends a model: no member is dirty, and nothing is left after they have left.
fn end<const N: usize>(machine: Machine, members: [Member; N]) {
    for member in &members {
        if let Ok(closing) = member.close() {
            closing.settle(false);
        }
        drop(member.unbind());
    }
    assert!(members.iter().all(|member| !member.is_dirty()));
    let shown = machine.show().unwrap();
    let expected = format!("resets {},", machine.resets());
    assert!(shown.as_str().starts_with(&expected), "{shown:?}");
    drop(members);
    assert_empty(&machine);
}

fn assert_empty(machine: &Machine) {
    assert_eq!(machine.show().unwrap(), "");
    assert_eq!(machine.functions(), 0);
}

/// Calls `f` as a system call in which a signal ends the first wait, and restarts it then.
fn interrupt<R>(f: impl Fn() -> Result<R>) -> R {
    signals::send();
    restart(f)
}

fn restart<R>(f: impl Fn() -> Result<R>) -> R {
    loop {
        match f() {
            Ok(result) => return result,
            Err(error) => assert_eq!(error, ERESTARTNOINTR),
        }
    }
}

/// Takes the time of a transit.
fn pass(member: &Member) {
    assert!(!member.hardware().is_resetting(), "claimed during a reset");
}

fn open(member: &Member) {
    let opening = member.open().unwrap();
    pass(member);
    opening.succeed(true);
}

fn fail_to_open(member: &Member) {
    let opening = member.open().unwrap();
    pass(member);
    drop(opening);
}

fn close(member: &Member, dirty: bool) {
    let closing = member.close().unwrap();
    pass(member);
    closing.settle(dirty);
}

fn close_clean(member: &Member) {
    close(member, false);
}

fn close_dirty(member: &Member) {
    close(member, true);
}

fn open_and_close(member: &Member) {
    open(member);
    close_clean(member);
}

fn open_and_close_dirty(member: &Member) {
    open(member);
    close_dirty(member);
}

fn bind(member: &Member, context: u8) {
    let binding = member.bind(context).unwrap();
    pass(member);
    binding.bound(u32::from(context));
}

fn unbind(member: &Member) {
    let unbinding = member.unbind().unwrap();
    pass(member);
    drop(unbinding);
}

fn bind_and_open(member: &Member) {
    bind(member, ME);
    open(member);
}

model!(both_closed_dirty, 2, || {
    let prepare = |a: &Member, b: &Member| {
        open(a);
        open(b);
    };
    assert_eq!(pair(prepare, close_dirty, close_dirty), 1);
});

model!(opened_and_closed, 2, || {
    pair(|_, _| (), open_and_close, open_and_close_dirty);
});

model!(open_fails_while_sibling_is_closed, 2, || {
    assert_eq!(pair(|_, b| open(b), fail_to_open, close_dirty), 1);
});

model!(two_want_one_function, 2, || {
    fn try_to_use(member: &Member, is_owned: &AtomicBool) {
        let Ok(opening) = member.open() else { return };
        assert!(!is_owned.swap(true, SeqCst), "two owners");
        pass(member);
        opening.succeed(true);
        let closing = member.close().unwrap();
        is_owned.store(false, SeqCst);
        closing.settle(true);
    }

    let machine = Machine::new().unwrap();
    let a = Arc::new(machine.join(BUS, 0).unwrap());
    let is_owned = Arc::new(AtomicBool::new(false));

    let other = (a.clone(), is_owned.clone());
    let thread = spawn(move || try_to_use(&other.0, &other.1));
    try_to_use(&a, &is_owned);
    done(thread);
    end(machine, [Arc::into_inner(a).unwrap()]);
});

model!(probed_at_once, 2, || {
    let machine = Machine::new().unwrap();
    let other = machine.clone();

    let thread = spawn(move || drop(other.join(BUS, 1).unwrap()));
    let a = machine.join(BUS, 0).unwrap();
    open_and_close_dirty(&a);
    done(thread);
    end(machine, [a]);
});

model!(removed_while_sibling_is_closed, 2, || {
    let (machine, a, b) = two();
    open(&a);

    let thread = spawn(move || drop(b));
    close_dirty(&a);
    done(thread);
    end(machine, [a]);
});

model!(listed_while_removed, 2, || {
    let machine = Machine::new().unwrap();
    let a = machine.join(BUS, 0).unwrap();

    let thread = spawn(move || drop(a));
    let list = machine.show().unwrap();
    assert!(["", "resets 0, 0 idle unknown"].contains(&list.as_str()));
    done(thread);
    assert_empty(&machine);
});

model!(serialized_siblings_come_and_go, 2, || {
    let machine = Machine::new().unwrap();
    let c = machine.join_serialized(BUS, 2).unwrap();
    let a = machine.join(BUS, 0).unwrap();
    let b = machine.join(BUS, 1).unwrap();

    let b = with(b, open_and_close_dirty);
    open_and_close_dirty(&a);
    end(machine, [a, done(b), c]);
});

model!(attached_while_sibling_comes_and_goes, 2, || {
    let attach_and_unbind = |a: &Member| {
        drop(a.attach().unwrap());
        unbind(a);
    };
    pair(|a, _| bind(a, ME), attach_and_unbind, open_and_close);
});

model!(interrupted_while_sibling_comes_and_goes, 2, || {
    let attach_and_unbind = |a: &Member| {
        drop(interrupt(|| a.attach()));
        unbind(a);
    };
    let open_and_close = |b: &Member| {
        let opening = interrupt(|| b.open());
        pass(b);
        opening.succeed(true);
        // A close is not interrupted.
        signals::send();
        close_clean(b);
    };
    pair(|a, _| bind(a, ME), attach_and_unbind, open_and_close);
});

model!(bindings_listed_while_sibling_is_bound, 2, || {
    let list = |a: &Member| {
        a.for_each_binding(ME, |_, binding| match binding {
            Binding::Changing(context) => assert_ne!(context, ME, "an ID is missing"),
            Binding::Bound(context, id) => assert_eq!(id, u32::from(context)),
            Binding::Unbound => (),
        })
        .unwrap();
        unbind(a);
    };
    pair(|a, _| bind(a, ME), list, |b| bind(b, ME));
});

model!(unbound_while_sibling_is_closed, 2, || {
    let prepare = |a: &Member, b: &Member| {
        bind(a, ME);
        open(b);
    };
    assert_eq!(pair(prepare, unbind, close_dirty), 1);
});

model!(both_closed_and_unbound, 2, || {
    let prepare = |a: &Member, b: &Member| {
        bind_and_open(a);
        bind_and_open(b);
    };
    let close_and_unbind = |member: &Member| {
        close_dirty(member);
        unbind(member);
    };
    assert_eq!(pair(prepare, close_and_unbind, close_and_unbind), 1);
});

model!(bound_while_sibling_is_closed, 2, || {
    let fail_to_bind = |a: &Member| {
        let binding = a.bind(ME).unwrap();
        pass(a);
        drop(binding);
    };
    assert_eq!(pair(|_, b| open(b), fail_to_bind, close_dirty), 1);
});

model!(three_come_and_go, 3, || {
    let open_and_close = open_and_close_dirty;
    trio(|_, _| (), open_and_close, fail_to_open, open_and_close);
});
