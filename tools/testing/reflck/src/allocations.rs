// SPDX-License-Identifier: GPL-2.0

//! Allocations: those that fail change nothing, and none outlives its use.

use crate::reflck::{
    fake::{
        at,
        open,
        Fake,
        Machine,
        BUS, //
    },
    Membership,
    ResetScope, //
};
use kernel::{
    alloc::{
        live,
        with_failure, //
    },
    fmt::Write,
    prelude::*, //
};
use std::{
    mem::forget,
    panic::{
        catch_unwind,
        resume_unwind,
        AssertUnwindSafe, //
    },
};

const OTHER_BUS: ResetScope = ResetScope::Bus { segment: 0, bus: 2 };

/// Asserts that nothing is live but these domains, members and their work, the registry and the
/// fake bus.
#[track_caller]
fn assert_live(machine: &Machine, domains: usize, members: usize) {
    assert_eq!(machine.functions(), members);
    assert_eq!(live(), 2 + domains + 2 * members);
}

/// Joins `scope`, with one allocation failing after `succeeding` ones. Function 0 is an open member
/// of the bus already. Returns whether there was such an allocation.
fn join_with_failure(scope: ResetScope, succeeding: usize) -> bool {
    let machine = Machine::new().unwrap();
    let existing = machine.join(BUS, 0).unwrap();
    open(&existing).unwrap();
    let function = machine.function(scope, 1);

    let (result, has_failed) =
        with_failure(succeeding, || machine.registry.join(scope, function, false));
    assert_eq!(result.as_ref().err(), has_failed.then_some(&ENOMEM));
    drop(result);
    assert_eq!(machine.show().unwrap(), "resets 0, 0 open unknown");
    assert_live(&machine, 1, 1);

    // No seat is left behind that would keep a domain.
    drop(machine.join(scope, 1).unwrap());
    existing.close().unwrap().settle(false);
    drop(existing);
    assert_live(&machine, 0, 0);
    has_failed
}

/// Returns the number of allocations of a join. Each of them fails in turn.
fn count_allocations(scope: ResetScope) -> usize {
    (0..)
        .take_while(|succeeding| join_with_failure(scope, *succeeding))
        .count()
}

#[test]
fn join_of_a_new_domain_fails() {
    // Room for debts, the domain, its entry in the registry, the member, its work, its entry in the
    // domain.
    assert_eq!(count_allocations(OTHER_BUS), 6);
    assert_eq!(count_allocations(ResetScope::Private(at(1))), 6);
}

#[test]
fn join_of_an_existing_domain_fails() {
    assert_eq!(count_allocations(BUS), 4);
}

#[test]
fn list_of_domains_fails() {
    let machine = Machine::new().unwrap();
    let _a = machine.join(BUS, 0).unwrap();
    let _b = machine.join(OTHER_BUS, 1).unwrap();

    for succeeding in 0..2 {
        let mut text = String::new();
        let (result, has_failed) =
            with_failure(succeeding, || write!(text, "{}", *machine.registry));
        assert!(has_failed && result.is_err());
        assert_live(&machine, 2, 2);
    }
}

#[test]
fn members_do_not_allocate() {
    let (machine, a, b) = Machine::with_two().unwrap();

    let ((), has_failed) = with_failure(0, || {
        machine.fail_resets(1, EAGAIN);
        open(&a).unwrap();
        open(&b).unwrap();
        a.close().unwrap().settle(true);
        drop(b.close().unwrap());
        drop(a.open().unwrap());
        drop(a);
        drop(b);
    });
    assert!(!has_failed);
    assert_eq!(machine.attempts(), 2);
    assert_live(&machine, 0, 0);
}

#[test]
fn leaving_in_use_warns() {
    let uses: [fn(&Membership<Fake>); 5] = [
        |member| member.bind(1).unwrap().bound(10),
        |member| forget(member.bind(1).unwrap()),
        |member| forget(member.open().unwrap()),
        |member| open(member).unwrap(),
        |member| {
            open(member).unwrap();
            member.close().unwrap().detach();
        },
    ];

    for begin_use in uses {
        let member = Machine::new().unwrap().join(BUS, 0).unwrap();
        begin_use(&member);
        let result = catch_unwind(AssertUnwindSafe(|| drop(member)));
        assert!(result.is_err(), "no warning");
    }
}

#[test]
fn leaving_in_use_frees_the_member() {
    let machine = Machine::new().unwrap();

    // Nothing warns during a panic, so leaving goes on as it does in the kernel.
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let member = machine.join(BUS, 0).unwrap();
        open(&member).unwrap();
        resume_unwind(Box::new("leave"));
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"leave"));
    assert_live(&machine, 0, 0);
}
