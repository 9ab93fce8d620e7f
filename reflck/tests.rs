// SPDX-License-Identifier: GPL-2.0

//! Tests of the reflck in one thread, on fake hardware.
//!
//! KUnit runs them in the kernel, `cargo test` on the host. `tools/testing/reflck` has the tests
//! that need threads or failing allocations, and the models.

use super::{
    fake::{
        anyone,
        at,
        close,
        open,
        user_of,
        Fake,
        Machine,
        Text,
        BUS, //
    },
    Address,
    Binding,
    Hardware,
    Membership,
    ResetScope, //
};
use kernel::{
    fmt::Write,
    prelude::*, //
};

mod iommufd;
mod reports;
mod resets;
mod status;

/// A scope without a reset of its own.
const PRIVATE: ResetScope = ResetScope::Private(at(0));

/// Two iommufd contexts.
const ME: u8 = 1;
const OTHER: u8 = 2;

fn bus(segment: u32, bus: u8) -> ResetScope {
    ResetScope::Bus { segment, bus }
}

fn slot(segment: u32, bus: u8, number: u16) -> ResetScope {
    ResetScope::Slot {
        segment,
        bus,
        number,
    }
}

fn bind(member: &Membership<Fake>, context: u8) -> Result {
    member
        .bind(context)?
        .bound(u32::from(context) * 10 + u32::from(member.hardware().address().devfn));

    Ok(())
}

/// Makes a machine with functions 0 and 1 on the bus, both bound to [`ME`] and the first one open.
fn with_owned() -> Result<(Machine, Membership<Fake>, Membership<Fake>)> {
    let (machine, a, b) = Machine::with_two()?;
    bind(&a, ME)?;
    bind(&b, ME)?;
    open(&a)?;

    Ok((machine, a, b))
}

/// Closes and unbinds a member, as far as it is open and bound.
fn give_back(member: Membership<Fake>) {
    if let Ok(closing) = member.close() {
        closing.settle(false);
    }
    drop(member.unbind());
}

fn text_of(arguments: kernel::fmt::Arguments<'_>) -> Result<Text> {
    let mut text = Text::new()?;
    text.write_fmt(arguments).map_err(|_| ENOMEM)?;

    Ok(text)
}

/// Returns the list of domains of function 0, alone in a private one.
fn private(state: &str) -> Result<Text> {
    text_of(fmt!("private 0000:01:00.0 resets 0, 0 {state}"))
}

#[cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, kunit_tests(vfio_pci_rs_reflck))]
mod suite {
    use super::*;

    #[test]
    fn address_is_shown_as_in_lspci() -> Result {
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
            assert_eq!(text_of(fmt!("{address}"))?, expected);
        }

        Ok(())
    }

    #[test]
    fn domains_are_listed_with_their_members() -> Result {
        let machine = Machine::new()?;
        assert_eq!(machine.list()?, "");

        let a = machine.join(slot(0x10000, 0x1a, 0x1f), 0)?;
        let b = machine.join(slot(0x10000, 0x1a, 0x1f), 1)?;
        let _c = machine.join(BUS, 2)?;
        let _d = machine.join(PRIVATE, 8)?;
        open(&a)?;
        close(&a, true)?;
        open(&b)?;
        open(&a)?;
        close(&a, true)?;
        assert_eq!(
            machine.list()?,
            "slot 10000:1a:1f resets 1\n  \
               0000:01:00.0 idle dirty\n  \
               0000:01:00.1 open unknown\n\
             bus 0000:01 resets 0\n  \
               0000:01:00.2 idle unknown\n\
             private 0000:01:00.0 resets 0\n  \
               0000:01:01.0 idle unknown\n"
        );
        machine.log()?;
        close(&b, false)?;
        assert_eq!(machine.log()?, "1 resets 0 1, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn functions_share_a_domain_if_their_scopes_are_equal() -> Result {
        let machine = Machine::new()?;
        let mut members = KVec::new();
        for (number, scope) in [
            BUS,
            bus(0, 2),
            bus(1, 1),
            slot(0, 1, 0),
            slot(0, 1, 1),
            slot(0, 2, 0),
            slot(1, 1, 0),
            PRIVATE,
        ]
        .into_iter()
        .enumerate()
        {
            let mut list = machine.list()?;
            members.push(machine.join(scope, number)?, GFP_KERNEL)?;
            members.push(machine.join(scope, number + 8)?, GFP_KERNEL)?;
            list.write_fmt(fmt!(
                "{scope} resets 0\n  {} idle unknown\n  {} idle unknown\n",
                at(number),
                at(number + 8)
            ))
            .map_err(|_| ENOMEM)?;
            assert_eq!(machine.list()?, list.as_str());
        }

        Ok(())
    }

    #[test]
    fn last_member_to_leave_frees_the_domain() -> Result {
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let machine = Machine::new()?;
            let mut members = [
                Some(machine.join(BUS, 0)?),
                Some(machine.join(BUS, 1)?),
                Some(machine.join(BUS, 2)?),
            ];

            members[order[0]] = None;
            assert_eq!(machine.functions(), 2);
            members[order[1]] = None;
            let expected = match order[2] {
                0 => "resets 0, 0 idle unknown",
                1 => "resets 0, 1 idle unknown",
                _ => "resets 0, 2 idle unknown",
            };
            assert_eq!(machine.show()?, expected);
            members[order[2]] = None;
            assert_eq!(machine.show()?, "");
            assert_eq!(machine.functions(), 0);
        }

        Ok(())
    }

    #[test]
    fn claims_are_refused_out_of_turn() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(PRIVATE, 0)?;

        for condition in ["unknown", "clean"] {
            assert_eq!(a.close().err(), Some(EBUSY));
            assert_eq!(a.unbind().err(), Some(EBUSY));
            assert_eq!(a.attach().err(), Some(EBUSY));
            assert_eq!(a.detach().err(), Some(EBUSY));
            let expected = text_of(fmt!("idle {condition}"))?;
            assert_eq!(machine.show()?, private(expected.as_str())?.as_str());
            let opening = a.open()?;
            assert_eq!(a.open().err(), Some(EBUSY));
            assert_eq!(a.close().err(), Some(EBUSY));
            let expected = text_of(fmt!("opening {condition}"))?;
            assert_eq!(machine.show()?, private(expected.as_str())?.as_str());
            opening.succeed(true);
            assert_eq!(a.open().err(), Some(EBUSY));
            assert_eq!(machine.show()?, private("open unknown")?.as_str());
            let closing = a.close()?;
            assert_eq!(a.open().err(), Some(EBUSY));
            assert_eq!(a.close().err(), Some(EBUSY));
            assert_eq!(machine.show()?, private("closing unknown")?.as_str());
            closing.settle(false);
        }
        assert_eq!(machine.show()?, private("idle clean")?.as_str());

        Ok(())
    }

    #[test]
    fn open_that_resets_the_function_cleans_it() -> Result {
        let (machine, a, b) = Machine::with_dirty()?;

        a.hardware().set_resets_alone();
        let opening = a.open()?;
        assert_eq!(machine.show()?, "resets 0, 0 opening dirty, 1 idle unknown");
        opening.succeed(true);
        open(&b)?;
        assert_eq!(machine.show()?, "resets 0, 0 open unknown, 1 open unknown");
        // Nothing is owed, so nothing is deferred.
        close(&b, false)?;
        close(&a, false)?;
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle clean");
        assert_eq!(machine.log()?, "");

        Ok(())
    }

    #[test]
    fn open_without_a_reset_leaves_the_function_dirty() -> Result {
        let (machine, a, b) = Machine::with_dirty()?;

        machine.fail_resets(1, EIO);
        a.open()?.succeed(false);
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n0 fails with -5\n");
        open(&b)?;
        assert_eq!(machine.show()?, "resets 0, 0 open dirty, 1 open unknown");
        close(&b, false)?;
        assert_eq!(machine.log()?, "1 is deferred by 0\n");
        close(&a, false)?;
        assert_eq!(machine.log()?, "");

        Ok(())
    }

    #[test]
    fn detached_close_is_settled_once() -> Result {
        let (machine, a, _b) = Machine::with_two()?;
        assert!(a.closing().is_none());
        let opening = a.open()?;
        assert!(a.closing().is_none());
        opening.succeed(true);
        assert!(a.closing().is_none());

        a.close()?.detach();
        assert_eq!(
            machine.show()?,
            "resets 0, 0 closing unknown, 1 idle unknown"
        );
        if let Some(closing) = a.closing() {
            closing.settle(true);
        }
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");
        assert!(a.closing().is_none());

        Ok(())
    }
}
