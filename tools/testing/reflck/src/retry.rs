// SPDX-License-Identifier: GPL-2.0

//! Resets that fail for a reason that may pass: when they are tried again, and when not.

use crate::{
    bindings::work::{
        begin,
        run_next, //
    },
    fake::{
        at,
        bus,
        close,
        open,
        Event,
        Fake,
        Machine, //
    },
    reflck::{
        Address,
        Membership,
        ResetScope, //
    },
};
use kernel::prelude::*;

const A: Address = at(1, 0, 0);
const B: Address = at(1, 0, 1);
const SCOPE: ResetScope = bus(1);

/// A machine with A and B on the bus. A is dirty, and `failing` resets have been or will be in
/// vain.
fn machine_with_dirty_a(failing: usize) -> (Machine, Membership<Fake>, Membership<Fake>) {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);

    machine.fail_resets(failing, EAGAIN);
    open(&a);
    close(&a, true);
    assert_eq!(machine.events(), [attempt(A)]);
    assert_eq!(machine.show()[0], "bus 0000:01 resets 0 failed 1");

    (machine, a, b)
}

/// An attempt at a reset with one dirty member.
fn attempt(on: Address) -> Event {
    Event::Reset {
        on,
        scope: SCOPE,
        members: vec![A, B],
        dirty: 1,
    }
}

#[test]
fn until_it_succeeds() {
    let (machine, a, _b) = machine_with_dirty_a(3);

    for (delay, shown) in [
        (100, "bus 0000:01 resets 0 failed 2"),
        (200, "bus 0000:01 resets 0 failed 3"),
        (400, "bus 0000:01 resets 1"),
    ] {
        assert!(a.is_dirty());
        assert_eq!(run_next(), Some(delay));
        assert_eq!(machine.events(), [attempt(A)]);
        assert_eq!(machine.show()[0], shown);
    }
    assert!(!a.is_dirty());
    assert_eq!(run_next(), None);
}

#[test]
fn not_for_ever() {
    let (machine, a, _b) = machine_with_dirty_a(usize::MAX);

    let mut delays = Vec::new();
    while let Some(delay) = run_next() {
        delays.push(delay);
    }
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800]);
    assert_eq!(machine.events().len(), delays.len());
    assert_eq!(machine.show()[0], "bus 0000:01 resets 0");
    assert!(a.is_dirty());

    // The next release begins anew.
    open(&a);
    close(&a, true);
    assert_eq!(machine.events(), [attempt(A)]);
    assert_eq!(run_next(), Some(100));
}

#[test]
fn not_for_a_reason_that_stays() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);

    machine.fail_resets(1, EIO);
    open(&a);
    close(&a, true);
    assert_eq!(machine.show()[0], "bus 0000:01 resets 0");
    assert_eq!(run_next(), None);
    assert!(a.is_dirty());
}

#[test]
fn given_up_for_a_reason_that_stays() {
    let (machine, a, _b) = machine_with_dirty_a(1);

    machine.fail_resets(1, EIO);
    assert_eq!(run_next(), Some(100));
    assert_eq!(machine.show()[0], "bus 0000:01 resets 0");
    assert_eq!(run_next(), None);
    assert!(a.is_dirty());
}

#[test]
fn given_up_when_a_member_is_opened() {
    let (machine, a, b) = machine_with_dirty_a(1);

    open(&b);
    assert_eq!(machine.show()[0], "bus 0000:01 resets 0");
    assert_eq!(run_next(), None);
    assert_eq!(machine.events(), []);

    close(&b, false);
    assert_eq!(machine.events(), [attempt(B)]);
    assert!(!a.is_dirty());
}

#[test]
fn given_up_when_a_member_is_bound() {
    let (machine, a, b) = machine_with_dirty_a(1);

    b.bind(1).unwrap().bound(10);
    assert_eq!(run_next(), None);
    assert_eq!(machine.events(), []);

    drop(b.unbind().unwrap());
    assert_eq!(machine.events(), [attempt(B)]);
    assert!(!a.is_dirty());
}

#[test]
fn not_given_up_for_what_is_refused() {
    let (machine, a, b) = machine_with_dirty_a(1);

    assert!(b.close().is_err());
    assert!(b.unbind().is_err());
    assert!(b.attach().is_err());
    assert_eq!(machine.show()[0], "bus 0000:01 resets 0 failed 1");
    assert_eq!(run_next(), Some(100));
    assert_eq!(machine.events(), [attempt(A)]);
    assert!(!a.is_dirty());
}

#[test]
fn given_up_when_it_has_begun_already() {
    let (machine, a, b) = machine_with_dirty_a(1);

    let begun = begin().unwrap();
    open(&b);
    begun.finish();
    assert_eq!(machine.events(), []);
    assert_eq!(run_next(), None);

    close(&b, false);
    assert_eq!(machine.events(), [attempt(B)]);
    assert!(!a.is_dirty());
}

#[test]
fn one_that_has_begun_serves_the_next_release() {
    let (machine, a, _b) = machine_with_dirty_a(2);

    let begun = begin().unwrap();
    open(&a);
    close(&a, true);
    assert_eq!(machine.events(), [attempt(A)]);
    begun.finish();
    assert_eq!(machine.events(), [attempt(A)]);
    assert!(!a.is_dirty());

    // What the release has scheduled finds nothing to do.
    assert_eq!(run_next(), Some(100));
    assert_eq!(machine.events(), []);
    assert_eq!(machine.show()[0], "bus 0000:01 resets 1");
}

#[test]
fn nothing_to_do_when_the_dirty_one_has_left() {
    let (machine, a, b) = machine_with_dirty_a(1);

    drop(a);
    assert_eq!(run_next(), Some(100));
    assert_eq!(machine.events(), []);
    assert_eq!(
        machine.show(),
        ["bus 0000:01 resets 0", "  0000:01:00.1 idle clean"]
    );
    drop(b);
}

#[test]
fn goes_with_the_domain() {
    let (machine, a, b) = machine_with_dirty_a(1);

    drop(a);
    drop(b);
    assert_eq!(run_next(), None);
    assert_eq!(machine.events(), []);
    machine.assert_has(0, 0);
}
