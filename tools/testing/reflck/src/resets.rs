// SPDX-License-Identifier: GPL-2.0

//! When a domain is reset, when that is deferred, and what is clean afterwards.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        slot,
        Event,
        Fake,
        Machine, //
    },
    reflck::Membership,
    reflck::{
        Address,
        ResetScope, //
    },
};
use kernel::prelude::*;

const A: Address = at(1, 0, 0);
const B: Address = at(1, 0, 1);
const C: Address = at(1, 0, 2);
const SCOPE: ResetScope = bus(1);

fn reset(on: Address, members: &[Address], dirty: usize) -> Event {
    Event::Reset {
        on,
        scope: SCOPE,
        members: members.to_vec(),
        dirty,
    }
}

fn deferred(on: Address, user: Address) -> Event {
    Event::Deferred {
        on,
        scope: SCOPE,
        user,
    }
}

/// Asserts the number of resets of the only domain, and what its members are listed as.
#[track_caller]
fn assert_shown<const N: usize>(machine: &Machine, resets: u64, members: [&str; N]) {
    let mut expected = vec![format!("bus 0000:01 resets {resets}")];
    expected.extend(members.map(|member| format!("  0000:01:00.{member}")));

    assert_eq!(machine.show(), expected);
}

/// A machine with A and B on the bus, of which only A has been used since the last reset, and is
/// dirty because the reset at its release failed.
fn machine_with_dirty_a() -> (Machine, Membership<Fake>, Membership<Fake>) {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);

    machine.fail_resets(1, EIO);
    open(&a);
    close(&a, true);
    assert_eq!(machine.events(), [reset(A, &[A, B], 1)]);
    assert_shown(&machine, 0, ["0 idle dirty", "1 idle clean"]);

    (machine, a, b)
}

#[test]
fn last_release_resets_once() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    open(&b);
    assert_eq!(machine.events(), []);

    close(&a, true);
    assert_eq!(machine.events(), [deferred(A, B)]);
    assert_shown(&machine, 0, ["0 idle dirty", "1 open clean"]);

    close(&b, true);
    assert_eq!(machine.events(), [reset(B, &[A, B], 2)]);
    assert_shown(&machine, 1, ["0 idle clean", "1 idle clean"]);

    open(&a);
    close(&a, false);
    assert_eq!(machine.events(), []);
}

#[test]
fn clean_last_release_resets_a_dirty_sibling() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    open(&b);

    close(&a, true);
    close(&b, false);
    assert_eq!(machine.events(), [deferred(A, B), reset(B, &[A, B], 1)]);
    assert_shown(&machine, 1, ["0 idle clean", "1 idle clean"]);
}

#[test]
fn slot_is_reset_as_a_bus_is() {
    let machine = Machine::new();
    let a = machine.join(slot(1, 0), A);
    open(&a);
    close(&a, true);

    let expected = Event::Reset {
        on: A,
        scope: slot(1, 0),
        members: vec![A],
        dirty: 1,
    };
    assert_eq!(machine.events(), [expected]);
    assert_eq!(
        machine.show(),
        ["slot 0000:01:00 resets 1", "  0000:01:00.0 idle clean"]
    );
}

#[test]
fn nothing_dirty_means_no_reset() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    open(&b);
    close(&a, false);
    drop(a.open().unwrap());
    close(&b, false);

    assert_eq!(machine.events(), []);
    assert_shown(&machine, 0, ["0 idle clean", "1 idle clean"]);
}

#[test]
fn opening_sibling_defers_the_reset() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    let opening = b.open().unwrap();

    close(&a, true);
    assert_eq!(machine.events(), [deferred(A, B)]);
    assert_shown(&machine, 0, ["0 idle dirty", "1 opening clean"]);
    opening.succeed(true);
    assert_eq!(machine.events(), []);
    assert_shown(&machine, 0, ["0 idle dirty", "1 open clean"]);
    close(&b, false);
    assert_eq!(machine.events(), [reset(B, &[A, B], 1)]);
}

#[test]
fn closing_sibling_defers_the_reset() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    open(&b);
    let closing = b.close().unwrap();

    close(&a, true);
    assert_eq!(machine.events(), [deferred(A, B)]);
    assert_shown(&machine, 0, ["0 idle dirty", "1 closing clean"]);
    closing.settle(false);
    assert_eq!(machine.events(), [reset(B, &[A, B], 1)]);
    assert_shown(&machine, 1, ["0 idle clean", "1 idle clean"]);
}

#[test]
fn deferred_reset_names_a_user_wherever_it_is_in_the_list() {
    for (releasing, user) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        let machine = Machine::new();
        let members = [A, B, C].map(|address| machine.join(SCOPE, address));
        open(&members[releasing]);
        open(&members[user]);

        close(&members[releasing], true);
        assert_eq!(
            machine.events(),
            [deferred([A, B, C][releasing], [A, B, C][user])]
        );
        close(&members[user], false);
    }
}

#[test]
fn failed_open_does_the_deferred_reset() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    let opening = b.open().unwrap();
    close(&a, true);
    assert_eq!(machine.events(), [deferred(A, B)]);

    drop(opening);
    assert_eq!(machine.events(), [reset(B, &[A, B], 1)]);
    assert_shown(&machine, 1, ["0 idle clean", "1 idle clean"]);
}

#[test]
fn failed_open_of_the_dirty_function_resets_it() {
    let (machine, a, _b) = machine_with_dirty_a();

    drop(a.open().unwrap());
    assert_eq!(machine.events(), [reset(A, &[A, B], 1)]);
    assert_shown(&machine, 1, ["0 idle clean", "1 idle clean"]);
}

#[test]
fn failed_open_defers_to_a_sibling_in_use() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    let c = machine.join(SCOPE, C);
    open(&a);
    open(&c);
    let opening = b.open().unwrap();
    close(&a, true);
    machine.events();

    drop(opening);
    assert_eq!(machine.events(), [deferred(B, C)]);
    assert_shown(
        &machine,
        0,
        ["0 idle dirty", "1 idle clean", "2 open clean"],
    );
    close(&c, false);
}

#[test]
fn dropped_closing_resets() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    open(&a);

    drop(a.close().unwrap());
    assert_eq!(machine.events(), [reset(A, &[A], 1)]);
    assert_shown(&machine, 1, ["0 idle clean"]);
}

#[test]
fn failed_reset_changes_nothing_and_is_retried() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    let c = machine.join(SCOPE, C);
    machine.fail_resets(2, EIO);
    open(&a);
    open(&b);
    close(&a, true);
    close(&b, true);
    assert_eq!(machine.events(), [deferred(A, B), reset(B, &[A, B, C], 2)]);
    assert_shown(
        &machine,
        0,
        ["0 idle dirty", "1 idle dirty", "2 idle clean"],
    );

    open(&c);
    close(&c, false);
    assert_eq!(machine.events(), [reset(C, &[A, B, C], 2)]);
    assert_shown(
        &machine,
        0,
        ["0 idle dirty", "1 idle dirty", "2 idle clean"],
    );

    open(&c);
    close(&c, false);
    assert_eq!(machine.events(), [reset(C, &[A, B, C], 2)]);
    assert_shown(
        &machine,
        1,
        ["0 idle clean", "1 idle clean", "2 idle clean"],
    );
}

#[test]
fn dirty_function_that_settles_clean_leaves_nothing_to_reset() {
    let (machine, a, _b) = machine_with_dirty_a();

    open(&a);
    close(&a, false);
    assert_eq!(machine.events(), []);
    assert_shown(&machine, 0, ["0 idle clean", "1 idle clean"]);
}

#[test]
fn opening_a_dirty_function_does_not_reset() {
    let (machine, a, b) = machine_with_dirty_a();

    open(&a);
    open(&b);
    assert_eq!(machine.events(), []);
    assert_shown(&machine, 0, ["0 open clean", "1 open clean"]);
    close(&a, false);
    close(&b, false);
}

#[test]
fn every_reset_counts() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);

    for resets in 1..=3 {
        open(&a);
        close(&a, true);
        assert_eq!(machine.events(), [reset(A, &[A], 1)]);
        assert_shown(&machine, resets, ["0 idle clean"]);
    }
}

#[test]
fn private_domain_is_never_reset() {
    let machine = Machine::new();
    let member = machine.join(ResetScope::Private(A), A);

    open(&member);
    close(&member, true);
    open(&member);
    drop(member.close().unwrap());
    drop(member.open().unwrap());
    assert_eq!(machine.events(), []);
    assert_eq!(
        machine.show(),
        ["private 0000:01:00.0 resets 0", "  0000:01:00.0 idle dirty"]
    );
}

#[test]
fn other_domains_neither_defer_nor_are_reset() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let other = machine.join(bus(2), at(2, 0, 0));
    open(&other);
    open(&a);

    close(&a, true);
    assert_eq!(machine.events(), [reset(A, &[A], 1)]);
    assert_eq!(
        machine.show(),
        [
            "bus 0000:01 resets 1",
            "  0000:01:00.0 idle clean",
            "bus 0000:02 resets 0",
            "  0000:02:00.0 open clean",
        ]
    );
    close(&other, false);
    assert_eq!(machine.events(), []);
}

#[test]
fn reset_reaches_the_members_of_its_time() {
    let machine = Machine::new();
    let a = machine.join(SCOPE, A);
    let b = machine.join(SCOPE, B);
    open(&a);
    let _c = machine.join(SCOPE, C);
    drop(b);

    close(&a, true);
    assert_eq!(machine.events(), [reset(A, &[A, C], 1)]);
}

#[test]
fn dirtiness_leaves_with_its_function() {
    let (machine, a, b) = machine_with_dirty_a();
    drop(a);
    assert_eq!(machine.events(), []);

    open(&b);
    close(&b, false);
    assert_eq!(machine.events(), []);
    assert_shown(&machine, 0, ["1 idle clean"]);
}

#[test]
fn member_knows_whether_it_is_dirty() {
    let (_machine, a, b) = machine_with_dirty_a();

    assert!(a.is_dirty());
    assert!(!b.is_dirty());
}
