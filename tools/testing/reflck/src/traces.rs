// SPDX-License-Identifier: GPL-2.0

//! What is traced, and in which order. (The fake looks which lock is held.)

use crate::fake::{
    at,
    bus,
    close,
    open,
    Machine, //
};

#[track_caller]
fn assert_traced(machine: &Machine, expected: &[&str]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|text| format!("bus 0000:01, 0000:01:00.0: {text}"))
        .collect();

    assert_eq!(machine.traces(), expected);
}

#[test]
fn a_life_with_iommufd() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));
    assert_traced(&machine, &[]);

    member.bind(1).unwrap().bound(7);
    member.open().unwrap().succeed(true);
    assert_traced(
        &machine,
        &[
            "wait Bind",
            "claim Bind",
            "settle open=false bound=true dirty=false",
            "wait Open",
            "claim Open",
            "settle open=true bound=true dirty=false",
        ],
    );

    drop(member.attach().unwrap());
    member.close().unwrap().settle(true);
    drop(member.unbind().unwrap());
    assert_traced(
        &machine,
        &[
            "wait Attach",
            "claim Attach",
            "settle open=true bound=true dirty=false",
            "wait Close",
            "claim Close",
            "settle open=false bound=true dirty=true",
            "wait Unbind",
            "claim Unbind",
            "settle open=false bound=false dirty=true",
            "reset",
        ],
    );
}

#[test]
fn a_failed_open_settles() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));

    drop(member.open().unwrap());
    assert_traced(
        &machine,
        &[
            "wait Open",
            "claim Open",
            "settle open=false bound=false dirty=false",
        ],
    );
}

#[test]
fn what_is_refused_is_not_claimed() {
    let machine = Machine::new();
    let member = machine.join(bus(1), at(1, 0, 0));
    open(&member);
    machine.traces();

    assert!(member.open().is_err());
    assert!(member.unbind().is_err());
    assert!(member.reset_owned(|_, _| false).is_err());
    assert_traced(&machine, &["wait Open", "wait Unbind", "wait HotReset"]);

    member.reset_owned(|_, _| true).unwrap();
    assert_traced(&machine, &["wait HotReset", "claim HotReset"]);
    close(&member, false);
}
