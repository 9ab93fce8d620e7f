// SPDX-License-Identifier: GPL-2.0

//! What addresses, scopes and the list of domains look like. Tools read the latter in debugfs.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        slot,
        Machine, //
    },
    reflck::{
        Address,
        ResetScope, //
    },
};

#[test]
fn list_of_domains() {
    let machine = Machine::new();
    let a = machine.join(slot(2, 0), at(2, 0, 0));
    let b = machine.join(slot(2, 0), at(2, 0, 1));
    let _c = machine.join(bus(3), at(3, 0, 0));
    let _d = machine.join(ResetScope::Private(at(0, 4, 0)), at(0, 4, 0));
    open(&a);
    close(&a, true);
    open(&b);
    open(&a);
    close(&a, true);

    assert_eq!(
        machine.registry.to_string(),
        "slot 0000:02:00 resets 1\n\
         \x20 0000:02:00.0 idle dirty\n\
         \x20 0000:02:00.1 open clean\n\
         bus 0000:03 resets 0\n\
         \x20 0000:03:00.0 idle clean\n\
         private 0000:00:04.0 resets 0\n\
         \x20 0000:00:04.0 idle clean\n"
    );
    close(&b, false);
}

#[test]
fn address() {
    for (segment, bus, devfn, expected) in [
        (0, 0, 0, "0000:00:00.0"),
        (0, 1, 0x07, "0000:01:00.7"),
        (0, 2, 0x08, "0000:02:01.0"),
        (0, 0xff, 0xff, "0000:ff:1f.7"),
        (0xabc, 0x0d, 0x55, "0abc:0d:0a.5"),
        (0x10000, 0xe1, 0xf8, "10000:e1:1f.0"),
    ] {
        let address = Address {
            segment,
            bus,
            devfn,
        };
        assert_eq!(address.to_string(), expected);
    }
}

#[test]
fn scope_of_a_slot() {
    for (segment, bus, number, expected) in [
        (0, 0, 0, "slot 0000:00:00"),
        (0, 0x1a, 0x1f, "slot 0000:1a:1f"),
        (0xfeed, 0xff, 0x123, "slot feed:ff:123"),
        (0x10000, 1, 2, "slot 10000:01:02"),
    ] {
        let scope = ResetScope::Slot {
            segment,
            bus,
            number,
        };
        assert_eq!(scope.to_string(), expected);
        assert_eq!(scope.kind(), "slot");
    }
}

#[test]
fn scope_of_a_bus() {
    for (segment, bus, expected) in [
        (0, 0, "bus 0000:00"),
        (0, 0x1a, "bus 0000:1a"),
        (0x10000, 0xff, "bus 10000:ff"),
    ] {
        let scope = ResetScope::Bus { segment, bus };
        assert_eq!(scope.to_string(), expected);
        assert_eq!(scope.kind(), "bus");
    }
}

#[test]
fn private_scope() {
    let scope = ResetScope::Private(at(1, 0x10, 2));

    assert_eq!(scope.to_string(), "private 0000:01:10.2");
    assert_eq!(scope.kind(), "private");
}
