// SPDX-License-Identifier: GPL-2.0

//! Tests of what the stand-in sees on top of the kernel: were it blind, so would be the tests that
//! rely on it.

use crate::{
    alloc::{
        live,
        with_failure,
        AllocError,
        Ledger, //
    },
    prelude::*,
    sync::{
        new_condvar,
        new_mutex,
        watch_waits,
        Arc,
        LockedBy,
        Mutex,
        Wait, //
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

/// Returns the message that `f` panics with.
fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("no panic");

    match panic.downcast_ref::<String>() {
        Some(message) => message.clone(),
        None => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

#[test]
fn locked_by_gives_the_data_to_its_owner() {
    let owner = new_mutex!(1, "owner");
    let locked = LockedBy::new(&owner, 2);
    *locked.access_mut(&mut owner.lock()) += 1;

    assert_eq!(*locked.access(&owner.lock()), 3);
}

#[test]
fn locked_by_refuses_another_owner() {
    let owner = new_mutex!(1, "owner");
    let other = new_mutex!(1, "other");
    let locked = LockedBy::new(&owner, 2);

    let message = panic_of(|| assert_eq!(*locked.access(&other.lock()), 2));
    assert!(message.contains("mismatched owners"), "{message}");
    let message = panic_of(|| *locked.access_mut(&mut other.lock()) = 3);
    assert!(message.contains("mismatched owners"), "{message}");
}

#[test]
fn no_lock_is_taken_inside_another() {
    let a = new_mutex!((), "a");
    let b = new_mutex!((), "b");

    for (outer, inner, expected) in [
        (&a, &b, "lock b is taken while a is held"),
        (&b, &a, "lock a is taken while b is held"),
    ] {
        let message = panic_of(|| {
            let _outer = outer.lock();
            let _inner = inner.lock();
        });
        assert_eq!(message, expected);
    }
    // What was taken has been given back, and one after the other is as it should be.
    drop(a.lock());
    drop(b.lock());
}

#[test]
fn lock_class_is_not_taken_inside_itself() {
    let a = new_mutex!((), "class");
    let b = new_mutex!((), "class");
    let _a = a.lock();

    let message = panic_of(|| drop(b.lock()));
    assert_eq!(message, "lock class is taken while class is held");
}

#[test]
fn a_thread_that_waits_can_be_held_up_before_it_has_the_lock_again() {
    let may_go = new_mutex!(false, "may_go");
    let changed = new_condvar!("changed");
    let (told, waits) = channel();
    let (go, may_take_it) = channel::<()>();

    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            watch_waits(move |wait| {
                told.send(wait).unwrap();
                if wait == Wait::IsNotified {
                    may_take_it.recv().unwrap();
                }
            });
            let mut guard = may_go.lock();
            while !*guard {
                changed.wait(&mut guard);
            }
        });
        assert_eq!(waits.recv(), Ok(Wait::Begins));
        *may_go.lock() = true;
        changed.notify_all();
        assert_eq!(waits.recv(), Ok(Wait::IsNotified));
        // The lock is free, and the waiter cannot have it.
        drop(may_go.lock());
        assert!(!waiter.is_finished());
        go.send(()).unwrap();
    });
}

#[test]
fn every_kind_of_allocation_fails_when_told_to() {
    let mut vector = KVec::new();
    vector.push(0, GFP_KERNEL).unwrap();

    assert_eq!(
        with_failure(0, || vector.push(1, GFP_KERNEL)),
        (Err(AllocError), true)
    );
    assert_eq!(
        with_failure(0, || vector.reserve(1, GFP_KERNEL)),
        (Err(AllocError), true)
    );
    let (result, has_failed) = with_failure(0, || Arc::new(0, GFP_KERNEL));
    assert!(result.is_err() && has_failed);
    let (result, has_failed) = with_failure(0, || Arc::pin_init(0, GFP_KERNEL));
    assert!(result.err() == Some(ENOMEM) && has_failed);
    assert_eq!(*vector, [0]);
}

#[test]
fn only_the_chosen_allocation_fails() {
    let mut vector = KVec::new();
    let (results, has_failed) = with_failure(1, || [1, 2, 3].map(|i| vector.push(i, GFP_KERNEL)));

    assert_eq!(results, [Ok(()), Err(AllocError), Ok(())]);
    assert!(has_failed);
    assert_eq!(*vector, [1, 3]);
    assert_eq!(
        with_failure(1, || vector.push(4, GFP_KERNEL)),
        (Ok(()), false)
    );
    vector.push(5, GFP_KERNEL).unwrap();
}

#[test]
fn room_that_was_made_needs_no_allocation() {
    let mut vector = KVec::new();
    vector.reserve(2, GFP_KERNEL).unwrap();

    let (results, has_failed) = with_failure(0, || [1, 2, 3].map(|i| vector.push(i, GFP_KERNEL)));
    assert_eq!(results, [Ok(()), Ok(()), Err(AllocError)]);
    assert!(has_failed);
}

#[test]
fn live_objects_are_counted_across_threads() {
    let ledger = Ledger::current();
    let a = Arc::new(Mutex::new(0, "a"), GFP_KERNEL).unwrap();
    let other = a.clone();
    assert_eq!(live(), 1);

    let b = thread::spawn(move || {
        drop(other);
        assert_eq!(live(), 0);
        ledger.share();
        Arc::new(0, GFP_KERNEL).unwrap()
    })
    .join()
    .unwrap();
    assert_eq!(live(), 2);
    drop(a);
    drop(b);
    assert_eq!(live(), 0);
}

#[test]
fn warning_is_a_failure() {
    assert!(!warn_on!(1 > 2));
    let message = panic_of(|| assert!(warn_on!(1 < 2)));

    assert_eq!(message, "WARN_ON(1 < 2)");
}

/// Warns when it is dropped.
struct Warning;

impl Drop for Warning {
    fn drop(&mut self) {
        assert!(warn_on!(1 < 2));
    }
}

#[test]
fn warning_after_a_failure_is_no_other_failure() {
    assert_eq!(panic_of(|| drop(Warning)), "WARN_ON(1 < 2)");
    let message = panic_of(|| {
        let _warning = Warning;
        panic!("failure");
    });

    assert_eq!(message, "failure");
}
