// SPDX-License-Identifier: GPL-2.0

//! Tests of the checks that the stand-in adds to the kernel.

use crate::{
    alloc::{
        live,
        with_failure,
        AllocError, //
    },
    prelude::*,
    sync::{
        hooks::{
            hook,
            Point, //
        },
        new_condvar,
        new_mutex,
        signals,
        Arc,
        LockedBy, //
    },
    warn_on, //
};
use std::{
    panic::{
        catch_unwind,
        AssertUnwindSafe, //
    },
    sync::mpsc::channel,
    thread,
};

fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("no panic");

    match panic.downcast_ref::<String>() {
        Some(message) => message.clone(),
        None => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

#[test]
fn locked_by_checks_its_owner() {
    let owner = new_mutex!(1, "owner");
    let other = new_mutex!(1, "other");
    let locked = LockedBy::new(&owner, 2);

    *locked.access_mut(&mut owner.lock()) += 1;
    assert_eq!(*locked.access(&owner.lock()), 3);
    let message = panic_of(|| assert_eq!(*locked.access(&other.lock()), 2));
    assert!(message.contains("mismatched owners"), "{message}");
    let message = panic_of(|| *locked.access_mut(&mut other.lock()) = 3);
    assert!(message.contains("mismatched owners"), "{message}");
}

#[test]
fn no_lock_nests_in_another() {
    let a = new_mutex!((), "a");
    let other_a = new_mutex!((), "a");
    let b = new_mutex!((), "b");

    for (outer, inner, expected) in [
        (&a, &b, "lock b is taken while a is held"),
        (&b, &a, "lock a is taken while b is held"),
        (&a, &other_a, "lock a is taken while a is held"),
    ] {
        let message = panic_of(|| {
            let _outer = outer.lock();
            let _inner = inner.lock();
        });
        assert_eq!(message, expected);
    }
    drop(a.lock());
    drop(b.lock());
}

#[test]
fn hook_holds_up_a_thread_that_was_notified() {
    let may_go = new_mutex!(false, "may_go");
    let changed = new_condvar!("changed");
    let (sender, points) = channel();
    let (go, may_take_it) = channel();

    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            hook(move |point| {
                sender.send(point).unwrap();
                if point == Point::Notified {
                    may_take_it.recv().unwrap();
                }
            });
            let mut guard = may_go.lock();
            while !*guard {
                changed.wait(&mut guard);
            }
        });
        assert_eq!(points.recv(), Ok(Point::Lock("may_go")));
        assert_eq!(points.recv(), Ok(Point::Wait));
        *may_go.lock() = true;
        changed.notify_all();
        assert_eq!(points.recv(), Ok(Point::Notified));
        // The lock is free, and the waiter cannot take it.
        drop(may_go.lock());
        assert!(!waiter.is_finished());
        go.send(()).unwrap();
    });
}

#[test]
fn signal_ends_one_interruptible_wait() {
    let is_set = new_mutex!(false, "is_set");
    let changed = new_condvar!("changed");

    signals::send();
    let mut guard = is_set.lock();
    assert!(changed.wait_interruptible(&mut guard));
    thread::scope(|scope| {
        scope.spawn(|| {
            *is_set.lock() = true;
            changed.notify_all();
        });
        while !*guard {
            assert!(!changed.wait_interruptible(&mut guard));
        }
    });
}

#[test]
fn chosen_allocation_fails() {
    let mut vector = KVec::new();
    let (results, has_failed) = with_failure(1, || [1, 2, 3].map(|i| vector.push(i, GFP_KERNEL)));
    assert_eq!(results, [Ok(()), Err(AllocError), Ok(())]);
    assert!(has_failed);
    assert_eq!(*vector, [1, 3]);

    let (result, has_failed) = with_failure(0, || vector.reserve(1, GFP_KERNEL));
    assert!(result.is_err() && has_failed);
    let (result, has_failed) = with_failure(0, || Arc::new(0, GFP_KERNEL));
    assert!(result.is_err() && has_failed);
    let (result, has_failed) = with_failure(0, || Arc::pin_init(0, GFP_KERNEL));
    assert!(result.err() == Some(ENOMEM) && has_failed);

    vector.reserve(1, GFP_KERNEL).unwrap();
    let (result, has_failed) = with_failure(0, || vector.push(4, GFP_KERNEL));
    assert!(result.is_ok() && !has_failed);
}

#[test]
fn live_objects_are_counted() {
    let a = Arc::new(0, GFP_KERNEL).unwrap();
    let b = a.clone();
    assert_eq!(live(), 1);
    drop((a, b));
    assert_eq!(live(), 0);
}

struct WarnsWhenDropped;

impl Drop for WarnsWhenDropped {
    fn drop(&mut self) {
        warn_on!(1 < 2);
    }
}

#[test]
fn warning_panics_unless_the_thread_does() {
    assert!(!warn_on!(1 > 2));
    assert_eq!(panic_of(|| drop(WarnsWhenDropped)), "WARN_ON(1 < 2)");
    let message = panic_of(|| {
        let _warning = WarnsWhenDropped;
        panic!("failure");
    });
    assert_eq!(message, "failure");
}
