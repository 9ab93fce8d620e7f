// SPDX-License-Identifier: GPL-2.0

//! The models: what two or three threads do at once with functions of one bus.
//!
//! Each model goes through every interleaving. Those of three threads have so many that the
//! environment variable `MODEL_PREEMPTIONS` can say how often, in each of them, a thread that could
//! go on may be left for another one.

use crate::{
    bindings::work::run_next,
    machine::{
        Machine,
        Member,
        ME,
        OTHER, //
    },
};
use kernel::alloc::live;
use loom::thread::{
    self,
    JoinHandle, //
};
use std::{
    env,
    sync::{
        atomic::{
            AtomicUsize,
            Ordering::Relaxed, //
        },
        Arc,
    },
};

/// Goes through every interleaving of the two threads of `f`.
fn model(name: &str, f: impl Fn() + Send + Sync + 'static) {
    check(name, None, f);
}

/// Goes through the interleavings of the three threads of `f`: every one, or those with no more
/// preemptions than `MODEL_PREEMPTIONS` says.
fn model_of_three(name: &str, f: impl Fn() + Send + Sync + 'static) {
    let bound = env::var("MODEL_PREEMPTIONS")
        .ok()
        .map(|bound| bound.parse().expect("MODEL_PREEMPTIONS is not a number"));

    check(name, bound, f);
}

/// Goes through the interleavings of `f`, and says how many there were.
fn check(name: &str, bound: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.max_branches = 100_000;
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        f();
        assert_eq!(live(), 0, "objects that outlive everything");
    });

    let bounded = bound.map_or(String::new(), |n| format!(" of at most {n} preemptions"));
    println!(
        "model {name}: {} interleavings{bounded}",
        count.load(Relaxed)
    );
}

/// A machine with two functions.
fn two() -> (Machine, Member, Member) {
    let machine = Machine::new();
    let (a, b) = (machine.join(0), machine.join(1));

    (machine, a, b)
}

/// Has a thread do something with a member.
fn with(member: Member, f: impl FnOnce(&Member) + 'static) -> JoinHandle<Member> {
    thread::spawn(move || {
        f(&member);
        member
    })
}

/// Ends a model: nothing is dirty, and nothing is left when the members have left.
fn end<const N: usize>(machine: Machine, members: [Member; N]) {
    machine.assert_clean(&members.each_ref());
    drop(members);
    machine.assert_empty();
}

fn done<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap()
}

#[test]
fn both_released_dirty() {
    model("both_released_dirty", || {
        let (machine, a, b) = two();
        a.open();
        b.open();

        let a = with(a, |a| a.close(true));
        b.close(true);
        let a = done(a);
        assert_eq!(machine.resets(), 1);
        end(machine, [a, b]);
    });
}

#[test]
fn opened_and_released() {
    model("opened_and_released", || {
        let (machine, a, b) = two();

        let a = with(a, |a| {
            a.open();
            a.close(true);
        });
        b.open();
        b.close(false);
        end(machine, [done(a), b]);
    });
}

#[test]
fn open_fails_while_sibling_is_released() {
    model("open_fails_while_sibling_is_released", || {
        let (machine, a, b) = two();
        a.open();

        let a = with(a, |a| a.close(true));
        b.fail_to_open();
        end(machine, [done(a), b]);
    });
}

#[test]
fn two_want_one_function() {
    model("two_want_one_function", || {
        let machine = Machine::new();
        let a = loom::sync::Arc::new(machine.join(0));
        let other = a.clone();

        let thread = thread::spawn(move || {
            if other.try_open() {
                other.close(true);
            }
        });
        if a.try_open() {
            a.close(true);
        }
        done(thread);
        machine.assert_clean(&[&a]);
        drop(a);
        machine.assert_empty();
    });
}

#[test]
fn probed_at_once() {
    model("probed_at_once", || {
        let machine = Machine::new();
        let other = machine.clone();

        let thread = thread::spawn(move || drop(other.join(1)));
        let a = machine.join(0);
        a.open();
        a.close(true);
        done(thread);
        end(machine, [a]);
    });
}

#[test]
fn removed_while_sibling_is_released() {
    model("removed_while_sibling_is_released", || {
        let (machine, a, b) = two();
        a.open();

        let thread = thread::spawn(move || drop(b));
        a.close(true);
        done(thread);
        end(machine, [a]);
    });
}

#[test]
fn listed_while_removed() {
    model("listed_while_removed", || {
        let machine = Machine::new();
        let a = machine.join(0);

        let thread = thread::spawn(move || drop(a));
        let shown = machine.show();
        assert!(
            ["", "bus 0000:01 resets 0\n  0000:01:00.0 idle clean\n"].contains(&&*shown),
            "{shown}"
        );
        done(thread);
        machine.assert_empty();
    });
}

#[test]
fn hot_reset_while_sibling_comes_and_goes() {
    model("hot_reset_while_sibling_comes_and_goes", || {
        let (machine, a, b) = two();
        a.open();

        let b = with(b, |b| {
            b.open();
            b.close(true);
        });
        a.reset_owned();
        a.close(false);
        end(machine, [a, done(b)]);
    });
}

#[test]
fn hot_reset_while_sibling_is_bound() {
    model("hot_reset_while_sibling_is_bound", || {
        let (machine, a, b) = two();
        a.bind(ME);
        a.open();

        let b = with(b, |b| {
            b.bind(ME);
            b.unbind();
        });
        a.hot_reset_for(ME);
        a.close(false);
        a.unbind();
        end(machine, [a, done(b)]);
    });
}

#[test]
fn hot_reset_while_sibling_changes_hands() {
    model("hot_reset_while_sibling_changes_hands", || {
        let (machine, a, b) = two();
        a.bind(ME);
        a.open();
        b.bind(ME);

        let b = with(b, |b| {
            b.unbind();
            b.bind(OTHER);
        });
        a.hot_reset_for(ME);
        a.close(false);
        a.unbind();
        let b = done(b);
        b.unbind();
        end(machine, [a, b]);
    });
}

#[test]
fn hot_reset_refused_while_sibling_is_bound() {
    model("hot_reset_refused_while_sibling_is_bound", || {
        let (machine, a, b) = two();
        a.bind(ME);
        a.open();
        b.bind(OTHER);

        let b = with(b, |b| {
            b.open();
            b.close(true);
        });
        assert!(!a.hot_reset_for(ME));
        a.close(false);
        a.unbind();
        let b = done(b);
        b.unbind();
        end(machine, [a, b]);
    });
}

#[test]
fn attached_while_sibling_comes_and_goes() {
    model("attached_while_sibling_comes_and_goes", || {
        let machine = Machine::with_iommu_group();
        let (a, b) = (machine.join(0), machine.join(1));
        a.bind(ME);

        let b = with(b, |b| {
            b.open();
            b.close(false);
        });
        a.attach();
        a.unbind();
        end(machine, [a, done(b)]);
    });
}

#[test]
fn bindings_listed_while_sibling_is_bound() {
    model("bindings_listed_while_sibling_is_bound", || {
        let (machine, a, b) = two();
        a.bind(ME);

        let b = with(b, |b| b.bind(ME));
        a.list_bindings(ME);
        a.unbind();
        let b = done(b);
        b.unbind();
        end(machine, [a, b]);
    });
}

#[test]
fn unbound_while_sibling_is_released() {
    model("unbound_while_sibling_is_released", || {
        let (machine, a, b) = two();
        a.bind(ME);
        b.open();

        let b = with(b, |b| b.close(true));
        a.unbind();
        end(machine, [a, done(b)]);
    });
}

/// A machine with two functions, the first one of which is dirty: its reset has failed, and is to
/// be tried again.
fn owed_a_reset() -> (Machine, Member, Member) {
    let (machine, a, b) = two();
    machine.fail_resets(1);
    a.open();
    a.close(true);
    assert_eq!((machine.attempts(), machine.resets()), (1, 0));

    (machine, a, b)
}

#[test]
fn retried_while_sibling_is_opened() {
    model("retried_while_sibling_is_opened", || {
        let (machine, a, b) = owed_a_reset();

        let work = thread::spawn(|| while run_next().is_some() {});
        b.open();
        b.close(false);
        done(work);
        end(machine, [a, b]);
    });
}

#[test]
fn retried_while_listed() {
    model("retried_while_listed", || {
        let (machine, a, b) = owed_a_reset();

        let work = thread::spawn(|| while run_next().is_some() {});
        let shown = machine.show();
        assert!(
            [
                "resets 0 failed 1\n  0000:01:00.0 idle dirty",
                "resets 1\n  0000:01:00.0 idle clean"
            ]
            .iter()
            .any(|state| shown.contains(state)),
            "{shown}"
        );
        done(work);
        end(machine, [a, b]);
    });
}

#[test]
fn retried_while_open_fails() {
    model("retried_while_open_fails", || {
        let (machine, a, b) = owed_a_reset();

        let work = thread::spawn(|| while run_next().is_some() {});
        a.fail_to_open();
        done(work);
        end(machine, [a, b]);
    });
}

#[test]
fn retried_while_the_dirty_one_is_removed() {
    model("retried_while_the_dirty_one_is_removed", || {
        let (machine, a, b) = owed_a_reset();

        let work = thread::spawn(|| while run_next().is_some() {});
        drop(a);
        done(work);
        end(machine, [b]);
    });
}

#[test]
fn retried_while_the_last_is_removed() {
    model("retried_while_the_last_is_removed", || {
        let (machine, a, b) = owed_a_reset();
        drop(b);

        let work = thread::spawn(|| while run_next().is_some() {});
        drop(a);
        done(work);
        machine.assert_empty();
        assert!(machine.attempts() <= 2);
    });
}

#[test]
fn three_come_and_go() {
    model_of_three("three_come_and_go", || {
        let machine = Machine::new();
        let (a, b, c) = (machine.join(0), machine.join(1), machine.join(2));

        let a = with(a, |a| {
            a.open();
            a.close(true);
        });
        let b = with(b, |b| b.fail_to_open());
        c.open();
        c.close(true);
        end(machine, [done(a), done(b), c]);
    });
}

#[test]
fn hot_reset_while_two_come_and_go() {
    model_of_three("hot_reset_while_two_come_and_go", || {
        let machine = Machine::new();
        let (a, b, c) = (machine.join(0), machine.join(1), machine.join(2));
        a.open();

        let b = with(b, |b| {
            b.open();
            b.close(true);
        });
        let c = with(c, |c| c.fail_to_open());
        a.reset_owned();
        a.close(false);
        end(machine, [a, done(b), done(c)]);
    });
}

#[test]
fn hot_reset_while_two_are_opened() {
    model_of_three("hot_reset_while_two_are_opened", || {
        let machine = Machine::new();
        let (a, b, c) = (machine.join(0), machine.join(1), machine.join(2));
        a.open();

        let b = with(b, |b| b.open());
        let c = with(c, |c| c.open());
        a.reset_owned();
        let (b, c) = (done(b), done(c));
        for member in [&a, &b, &c] {
            member.close(false);
        }
        end(machine, [a, b, c]);
    });
}

#[test]
fn two_hot_resets_while_sibling_comes_and_goes() {
    model_of_three("two_hot_resets_while_sibling_comes_and_goes", || {
        let machine = Machine::new();
        let (a, b, c) = (machine.join(0), machine.join(1), machine.join(2));
        a.open();
        b.open();

        let b = with(b, |b| b.reset_owned());
        let c = with(c, |c| {
            c.open();
            c.close(true);
        });
        a.reset_owned();
        let b = done(b);
        b.close(false);
        a.close(false);
        end(machine, [a, b, done(c)]);
    });
}

#[test]
fn retried_while_one_is_opened_and_one_is_removed() {
    model_of_three("retried_while_one_is_opened_and_one_is_removed", || {
        let (machine, a, b) = owed_a_reset();

        let work = thread::spawn(|| while run_next().is_some() {});
        let b = thread::spawn(move || drop(b));
        a.open();
        a.close(true);
        done(b);
        done(work);
        end(machine, [a]);
    });
}
