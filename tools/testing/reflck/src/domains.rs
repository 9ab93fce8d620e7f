// SPDX-License-Identifier: GPL-2.0

//! Domains are found, made and freed: a function is in exactly one, and two functions share one if
//! and only if their scopes are equal.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        slot,
        Machine, //
    },
    reflck::Hardware,
    reflck::ResetScope,
};
use kernel::alloc::live;
use std::{
    mem::forget,
    panic::{
        catch_unwind,
        resume_unwind,
        AssertUnwindSafe, //
    },
};

#[test]
fn registry_begins_empty() {
    let machine = Machine::new();

    machine.assert_has(0, 0);
}

#[test]
fn equal_scopes_share_a_domain() {
    for scope in [slot(1, 0), bus(1)] {
        let machine = Machine::new();
        let _a = machine.join(scope, at(1, 0, 0));
        let _b = machine.join(scope, at(1, 0, 1));

        assert_eq!(
            machine.show(),
            [
                format!("{scope} resets 0"),
                "  0000:01:00.0 idle clean".into(),
                "  0000:01:00.1 idle clean".into(),
            ]
        );
        machine.assert_has(1, 2);
    }
}

#[test]
fn different_scopes_do_not_share_a_domain() {
    let elsewhere = ResetScope::Bus { segment: 1, bus: 1 };
    let slot_elsewhere = ResetScope::Slot {
        segment: 1,
        bus: 1,
        number: 0,
    };
    let scopes = [
        bus(1),
        bus(2),
        elsewhere,
        slot(1, 0),
        slot(1, 1),
        slot(2, 0),
        slot_elsewhere,
        ResetScope::Private(at(1, 0, 0)),
        ResetScope::Private(at(1, 0, 1)),
    ];
    let machine = Machine::new();
    let _members = scopes.map(|scope| machine.join(scope, at(1, 0, 0)));

    let expected: Vec<_> = scopes
        .iter()
        .flat_map(|scope| {
            [
                format!("{scope} resets 0"),
                "  0000:01:00.0 idle clean".to_string(),
            ]
        })
        .collect();
    assert_eq!(machine.show(), expected);
    machine.assert_has(scopes.len(), scopes.len());
}

#[test]
fn last_leaver_frees_the_domain() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let machine = Machine::new();
        let mut members = [0, 1, 2].map(|i| Some(machine.join(bus(1), at(1, 0, i))));
        machine.assert_has(1, 3);

        for (left, i) in order.into_iter().enumerate() {
            members[i] = None;

            let mut expected = vec![];
            if left < 2 {
                expected.push("bus 0000:01 resets 0".to_string());
            }
            for member in members.iter().flatten() {
                let address = member.hardware().address();
                expected.push(format!("  {address} idle clean"));
            }
            assert_eq!(machine.show(), expected);
            machine.assert_has(usize::from(left < 2), 2 - left);
        }
    }
}

#[test]
fn leaving_keeps_other_domains() {
    let machine = Machine::new();
    let first = machine.join(bus(1), at(1, 0, 0));
    let second = machine.join(bus(2), at(2, 0, 0));
    let third = machine.join(slot(3, 0), at(3, 0, 0));

    drop(second);
    assert_eq!(
        machine.show(),
        [
            "bus 0000:01 resets 0",
            "  0000:01:00.0 idle clean",
            "slot 0000:03:00 resets 0",
            "  0000:03:00.0 idle clean",
        ]
    );
    machine.assert_has(2, 2);

    drop(first);
    machine.assert_has(1, 1);
    drop(third);
    machine.assert_has(0, 0);
}

#[test]
fn domain_outlives_those_who_made_it_but_not_its_last_member() {
    let machine = Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));
    let b = machine.join(bus(1), at(1, 0, 1));
    open(&a);
    close(&a, true);
    drop(a);
    assert_eq!(
        machine.show(),
        ["bus 0000:01 resets 1", "  0000:01:00.1 idle clean"]
    );

    drop(b);
    let _c = machine.join(bus(1), at(1, 0, 2));
    assert_eq!(
        machine.show(),
        ["bus 0000:01 resets 0", "  0000:01:00.2 idle clean"]
    );
    machine.assert_has(1, 1);
}

#[test]
fn joining_finds_the_domain_while_a_member_is_in_use() {
    let machine = Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));
    open(&a);
    let _b = machine.join(bus(1), at(1, 0, 1));

    assert_eq!(
        machine.show(),
        [
            "bus 0000:01 resets 0",
            "  0000:01:00.0 open clean",
            "  0000:01:00.1 idle clean",
        ]
    );
    close(&a, false);
}

#[test]
fn memberships_keep_the_registry() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));
    drop(machine);
    // The registry, the domain and the member.
    assert_eq!(live(), 3);

    open(&member);
    close(&member, false);
    drop(member);
    assert_eq!(live(), 0);
}

#[test]
#[should_panic(expected = "WARN_ON(self.member.state.access(&members).is_used())")]
fn leaving_while_open_warns() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));
    open(&member);

    drop(member);
}

#[test]
#[should_panic(expected = "WARN_ON(self.member.state.access(&members).is_used())")]
fn leaving_while_opening_warns() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));
    forget(member.open().unwrap());

    drop(member);
}

#[test]
#[should_panic(expected = "WARN_ON(self.member.state.access(&members).is_used())")]
fn leaving_while_closing_warns() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));
    open(&member);
    forget(member.close().unwrap());

    drop(member);
}

#[test]
fn leaving_while_open_is_leaving_nevertheless() {
    let machine = Machine::new();
    let sibling = machine.join(bus(1), at(1, 0, 1));

    // During a panic nothing warns, so that leaving goes on as it does in the kernel.
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let member = machine.join(bus(1), at(1, 0, 0));
        open(&member);
        resume_unwind(Box::new("leave"));
    }))
    .expect_err("no panic");
    assert_eq!(panic.downcast_ref(), Some(&"leave"));
    machine.assert_has(1, 1);
    drop(sibling);
    machine.assert_has(0, 0);
}
