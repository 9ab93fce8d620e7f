// SPDX-License-Identifier: GPL-2.0

//! Claims: every way from one to the next, and every refusal.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        Fake,
        Machine, //
    },
    reflck::Membership,
    reflck::ResetScope,
};
use kernel::prelude::*;

/// A scope that no reset interferes with.
const PRIVATE: ResetScope = ResetScope::Private(at(0, 4, 0));

/// Asserts what the only member of the only domain is listed as.
#[track_caller]
fn assert_state(machine: &Machine, state: &str) {
    assert_eq!(
        machine.show(),
        [
            "private 0000:00:04.0 resets 0".to_string(),
            format!("  0000:00:04.0 {state}")
        ]
    );
}

#[track_caller]
fn assert_open_refused(member: &Membership<Fake>) {
    assert_eq!(member.open().err(), Some(EBUSY));
}

#[track_caller]
fn assert_close_refused(member: &Membership<Fake>) {
    assert_eq!(member.close().err(), Some(EBUSY));
}

#[test]
fn every_claim_in_turn() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));

    for _ in 0..2 {
        assert_state(&machine, "idle clean");
        let opening = member.open().unwrap();
        assert_state(&machine, "opening clean");
        opening.succeed(true);
        assert_state(&machine, "open clean");
        let closing = member.close().unwrap();
        assert_state(&machine, "closing clean");
        closing.settle(false);
    }
    assert_state(&machine, "idle clean");
    assert_eq!(machine.events(), []);
}

#[test]
fn idle_refuses_close() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));

    assert_close_refused(&member);
    assert_state(&machine, "idle clean");
}

#[test]
fn opening_refuses_open_and_close() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));
    let opening = member.open().unwrap();

    assert_open_refused(&member);
    assert_close_refused(&member);
    assert_state(&machine, "opening clean");
    opening.succeed(true);
    assert_state(&machine, "open clean");
    close(&member, false);
}

#[test]
fn open_refuses_open() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));
    open(&member);

    assert_open_refused(&member);
    assert_state(&machine, "open clean");
    close(&member, false);
    assert_state(&machine, "idle clean");
}

#[test]
fn closing_refuses_open_and_close() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));
    open(&member);
    let closing = member.close().unwrap();

    assert_open_refused(&member);
    assert_close_refused(&member);
    assert_state(&machine, "closing clean");
    closing.settle(false);
    assert_state(&machine, "idle clean");
}

#[test]
fn failed_open_leaves_the_function_idle() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));

    drop(member.open().unwrap());
    assert_state(&machine, "idle clean");
    open(&member);
    assert_state(&machine, "open clean");
    close(&member, false);
}

#[test]
fn failed_open_leaves_the_function_as_dirty_as_it_was() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));
    open(&member);
    close(&member, true);

    drop(member.open().unwrap());
    assert_state(&machine, "idle dirty");
}

#[test]
fn settling_says_whether_the_function_is_dirty() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));

    for (dirty, state) in [
        (true, "idle dirty"),
        (true, "idle dirty"),
        (false, "idle clean"),
        (true, "idle dirty"),
    ] {
        open(&member);
        close(&member, dirty);
        assert_state(&machine, state);
    }
}

#[test]
fn closing_that_is_dropped_leaves_the_function_dirty() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));
    open(&member);

    drop(member.close().unwrap());
    assert_state(&machine, "idle dirty");
}

#[test]
fn open_cleans_what_it_resets() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));

    for (was_reset, state) in [(false, "open dirty"), (true, "open clean")] {
        open(&member);
        close(&member, true);

        let opening = member.open().unwrap();
        assert_state(&machine, "opening dirty");
        opening.succeed(was_reset);
        assert_state(&machine, state);
        close(&member, false);
        assert_state(&machine, "idle clean");
    }
}

#[test]
fn closing_is_found_again() {
    let machine = Machine::new();
    let member = machine.join(PRIVATE, at(0, 4, 0));

    assert!(member.closing().is_none());
    let opening = member.open().unwrap();
    assert!(member.closing().is_none());
    opening.succeed(true);
    assert!(member.closing().is_none());
    member.close().unwrap().detach();
    assert_state(&machine, "closing clean");
    member.closing().unwrap().settle(true);
    assert_state(&machine, "idle dirty");
    assert!(member.closing().is_none());
}

#[test]
fn claims_of_siblings_are_independent() {
    let machine = Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));
    let b = machine.join(bus(1), at(1, 0, 1));
    let c = machine.join(bus(1), at(1, 0, 2));

    let opening_a = a.open().unwrap();
    let opening_b = b.open().unwrap();
    opening_a.succeed(true);
    let closing_a = a.close().unwrap();
    let opening_c = c.open().unwrap();
    assert_eq!(
        machine.show(),
        [
            "bus 0000:01 resets 0",
            "  0000:01:00.0 closing clean",
            "  0000:01:00.1 opening clean",
            "  0000:01:00.2 opening clean",
        ]
    );

    opening_b.succeed(true);
    drop(opening_c);
    closing_a.settle(false);
    assert_eq!(
        machine.show(),
        [
            "bus 0000:01 resets 0",
            "  0000:01:00.0 idle clean",
            "  0000:01:00.1 open clean",
            "  0000:01:00.2 idle clean",
        ]
    );
    close(&b, false);
}
