// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail: joining then changes nothing and leaks nothing. Nothing that a function
//! does as a member allocates at all.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        Fake,
        Machine, //
    },
    reflck::Registry,
    reflck::ResetScope,
};
use kernel::{
    alloc::{
        live,
        with_failure, //
    },
    fmt::Write,
    prelude::*,
};

/// Joins the domain of `scope` in a machine where function 0 of bus 1 is a member already, with the
/// allocation after `succeeding` ones failing. Returns whether there was such an allocation.
fn join_with_failure(scope: ResetScope, succeeding: usize) -> bool {
    let machine = Machine::new();
    let existing = machine.join(bus(1), at(1, 0, 0));
    open(&existing);
    let before = machine.show();
    let function = machine.function(at(1, 0, 1));

    let (result, has_failed) = with_failure(succeeding, || machine.registry.join(scope, function));
    if has_failed {
        assert_eq!(result.err(), Some(ENOMEM));
        assert_eq!(machine.show(), before);
        machine.assert_has(1, 1);

        // Nothing stands in the way of the next one.
        let member = machine.join(scope, at(1, 0, 1));
        open(&member);
        close(&member, false);
        assert_ne!(machine.show(), before);
        drop(member);
    } else {
        let _member = result.unwrap();
        assert_ne!(machine.show(), before);
    }

    assert_eq!(machine.show(), before);
    machine.assert_has(1, 1);

    // No place is left behind that would keep a domain.
    close(&existing, false);
    drop(existing);
    machine.assert_has(0, 0);
    has_failed
}

/// Lets each allocation of a join fail in turn. Returns how many there are.
fn walk(scope: ResetScope) -> usize {
    let mut succeeding = 0;
    while join_with_failure(scope, succeeding) {
        succeeding += 1;
    }

    succeeding
}

#[test]
fn joining_a_new_domain() {
    // The domain, its entry in the registry, the member, its entry in the domain.
    assert_eq!(walk(bus(2)), 4);
    assert_eq!(walk(ResetScope::Private(at(1, 0, 1))), 4);
}

#[test]
fn joining_an_existing_domain() {
    // The same, but the domain and its entry.
    assert_eq!(walk(bus(1)), 2);
}

#[test]
fn making_a_registry() {
    let (result, has_failed) = with_failure(0, Registry::<Fake>::new);

    assert!(has_failed);
    assert_eq!(result.err(), Some(ENOMEM));
    assert_eq!(live(), 0);
}

#[test]
fn listing_the_domains() {
    let machine = Machine::new();
    let _a = machine.join(bus(1), at(1, 0, 0));
    let _b = machine.join(bus(2), at(2, 0, 0));

    for succeeding in 0..2 {
        let mut text = String::new();
        let (result, has_failed) =
            with_failure(succeeding, || write!(text, "{}", *machine.registry));
        assert!(has_failed);
        assert!(result.is_err());
        machine.assert_has(2, 2);
    }
}

#[test]
fn members_do_not_allocate() {
    let machine = Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));
    let b = machine.join(bus(1), at(1, 0, 1));

    let ((), has_failed) = with_failure(0, || {
        open(&a);
        open(&b);
        close(&a, true);
        drop(a.open().unwrap());
        drop(b.close().unwrap());
        drop(a);
        drop(b);
    });
    assert!(!has_failed);
    assert_eq!(machine.events().len(), 3);
    machine.assert_has(0, 0);
}
