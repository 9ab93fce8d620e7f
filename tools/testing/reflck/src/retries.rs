// SPDX-License-Identifier: GPL-2.0

//! Retries of resets that fail transiently, by a clock that the tests move.

use crate::{
    bindings::work::{
        begin,
        run_next, //
    },
    reflck::{
        fake::{
            close,
            open,
            Fake,
            Machine, //
        },
        Membership, //
    },
};
use kernel::prelude::*;

const ATTEMPT: &str = "0 resets 0 1, 1 dirty\n";

/// Makes a machine with functions 0 and 1. Function 0 is dirty, as the first of `failing` resets
/// has failed.
fn with_retry(failing: usize) -> (Machine, Membership<Fake>, Membership<Fake>) {
    let (machine, a, b) = Machine::with_two().unwrap();
    machine.fail_resets(failing, EAGAIN);
    open(&a).unwrap();
    close(&a, true).unwrap();
    assert_eq!(
        machine.log().unwrap(),
        "0 resets 0 1, 1 dirty\n0 fails with -11, retry in 100\n"
    );
    assert_shown(&machine, "resets 0 failed 1, 0 idle dirty, 1 idle unknown");

    (machine, a, b)
}

#[track_caller]
fn assert_shown(machine: &Machine, expected: &str) {
    assert_eq!(machine.show().unwrap(), expected);
}

#[track_caller]
fn assert_logged(machine: &Machine, expected: &str) {
    assert_eq!(machine.log().unwrap(), expected);
}

#[test]
fn retried_until_it_succeeds() {
    let (machine, _a, _b) = with_retry(3);

    assert_eq!(run_next(), Some(100));
    assert_shown(&machine, "resets 0 failed 2, 0 idle dirty, 1 idle unknown");
    assert_eq!(run_next(), Some(200));
    assert_shown(&machine, "resets 0 failed 3, 0 idle dirty, 1 idle unknown");
    assert_eq!(run_next(), Some(400));
    assert_shown(&machine, "resets 1, 0 idle clean, 1 idle clean");
    assert_eq!(run_next(), None);
    assert_eq!(machine.attempts(), 4);
}

#[test]
fn given_up_after_the_last_delay() {
    let (machine, a, _b) = with_retry(usize::MAX);

    let delays: Vec<_> = std::iter::from_fn(run_next).collect();
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800]);
    assert_eq!(machine.attempts(), 1 + delays.len());
    assert_shown(&machine, "resets 0, 0 idle dirty, 1 idle unknown");
    let log = machine.log().unwrap();
    assert!(log.as_str().ends_with("0 fails with -11\n"), "{log:?}");

    // The next close starts again.
    open(&a).unwrap();
    close(&a, true).unwrap();
    assert_eq!(run_next(), Some(100));
}

#[test]
fn permanent_failure_is_not_retried() {
    let (machine, _a, _b) = with_retry(1);

    machine.fail_resets(1, EIO);
    assert_eq!(run_next(), Some(100));
    assert_logged(&machine, "0 resets 0 1, 1 dirty\n0 fails with -5\n");
    assert_shown(&machine, "resets 0, 0 idle dirty, 1 idle unknown");
    assert_eq!(run_next(), None);
}

#[test]
fn open_cancels_the_retry() {
    let (machine, _a, b) = with_retry(1);

    open(&b).unwrap();
    assert_shown(&machine, "resets 0, 0 idle dirty, 1 open unknown");
    assert_eq!(run_next(), None);
    close(&b, false).unwrap();
    assert_logged(&machine, "1 resets 0 1, 1 dirty\n");
}

#[test]
fn bind_cancels_the_retry() {
    let (machine, _a, b) = with_retry(1);

    b.bind(1).unwrap().bound(10);
    assert_eq!(run_next(), None);
    drop(b.unbind().unwrap());
    assert_logged(&machine, "1 resets 0 1, 1 dirty\n");
}

/// Makes a machine as [`with_retry`]. iommufd unbinds function 0 after its close.
fn with_retry_while_bound() -> (Machine, Membership<Fake>, Membership<Fake>) {
    let (machine, a, b) = Machine::with_two().unwrap();
    machine.fail_resets(1, EAGAIN);
    a.bind(1).unwrap().bound(10);
    open(&a).unwrap();
    close(&a, true).unwrap();
    machine.log().unwrap();

    (machine, a, b)
}

#[test]
fn unbind_keeps_the_retry() {
    let (machine, a, _b) = with_retry_while_bound();

    drop(a.unbind().unwrap());
    assert_logged(&machine, "");
    assert_eq!(run_next(), Some(100));
    assert_logged(&machine, ATTEMPT);
}

#[test]
fn refused_claims_keep_the_retry() {
    let (machine, _a, b) = with_retry(1);

    assert!(b.close().is_err());
    assert!(b.unbind().is_err());
    assert!(b.attach().is_err());
    assert_eq!(run_next(), Some(100));
    assert_logged(&machine, ATTEMPT);
}

#[test]
fn open_stops_a_retry_that_has_begun() {
    let (machine, _a, b) = with_retry(1);

    let running = begin().unwrap();
    open(&b).unwrap();
    running.finish();
    assert_logged(&machine, "");
    assert_eq!(run_next(), None);
    close(&b, false).unwrap();
    assert_logged(&machine, "1 resets 0 1, 1 dirty\n");
}

#[test]
fn retry_that_has_begun_serves_the_next_close() {
    let (machine, a, _b) = with_retry(2);

    a.hardware().set_resets_alone();
    let running = begin().unwrap();
    open(&a).unwrap();
    close(&a, true).unwrap();
    assert_logged(
        &machine,
        "0 resets 0 1, 1 dirty\n0 fails with -11, retry in 100\n",
    );
    running.finish();
    assert_logged(&machine, ATTEMPT);

    // The close has scheduled another one, which has nothing to do.
    assert_eq!(run_next(), Some(100));
    assert_logged(&machine, "");
    assert_shown(&machine, "resets 1, 0 idle clean, 1 idle clean");
}

#[test]
fn first_reset_that_fails_proves_nothing() {
    let (_machine, a, _b) = Machine::with_two().unwrap();

    a.hardware().fail_alone(1, EIO);
    a.reset_later();
    assert_eq!(run_next(), Some(0));
    a.hardware().prove();
    assert!(!a.is_clean());
}

#[test]
fn member_within_reach_is_looked_at_after_a_close_without_work() {
    let (machine, a, _b) = Machine::with_two().unwrap();

    open(&a).unwrap();
    a.hardware().expose(true);
    a.close().unwrap().finish_later();
    assert_eq!(run_next(), Some(0));
    open(&a).unwrap();
    // That of the first close.
    assert_eq!(run_next(), Some(10));
    assert_eq!(run_next(), None);
    close(&a, false).unwrap();
    a.hardware().expose(false);
    assert_eq!(run_next(), Some(10));
    assert_eq!(run_next(), Some(0));
    assert_shown(&machine, "resets 0, 0 idle clean, 1 idle unknown");
}
