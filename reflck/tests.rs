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
    Failure,
    Hardware,
    Membership,
    Obstacle,
    Report,
    ResetFailure,
    ResetScope,
    Stranger, //
};
use kernel::{
    fmt::{
        self,
        Write, //
    },
    prelude::*, //
};

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

/// Makes a machine with functions 0 and 1 on the bus. Function 0 is dirty: its reset has failed.
fn with_dirty() -> Result<(Machine, Membership<Fake>, Membership<Fake>)> {
    let (machine, a, b) = Machine::with_two()?;
    machine.fail_resets(1, EIO);
    open(&a)?;
    close(&a, true)?;
    machine.log()?;

    Ok((machine, a, b))
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

/// A stranger that is changing or not.
struct Owner(bool);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has an owner")
    }
}

impl Stranger for Owner {
    fn is_changing(&self) -> bool {
        self.0
    }
}

fn text_of(arguments: kernel::fmt::Arguments<'_>) -> Result<Text> {
    let mut text = Text::new()?;
    text.write_fmt(arguments).map_err(|_| ENOMEM)?;

    Ok(text)
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
    fn scope_is_shown_with_its_kind() -> Result {
        for (scope, expected) in [
            (bus(0, 0), "bus 0000:00"),
            (bus(0x10000, 0xff), "bus 10000:ff"),
            (slot(0, 0, 0), "slot 0000:00:00"),
            (slot(0, 0x1a, 0x1f), "slot 0000:1a:1f"),
            (slot(0xfeed, 0xff, 0x123), "slot feed:ff:123"),
            (ResetScope::Private(at(10)), "private 0000:01:01.2"),
        ] {
            assert_eq!(text_of(fmt!("{scope}"))?, expected);
        }
        assert_eq!(bus(0, 0).kind(), "bus");
        assert_eq!(slot(0, 0, 0).kind(), "slot");
        assert_eq!(PRIVATE.kind(), "private");

        Ok(())
    }

    #[test]
    fn domains_are_listed_with_their_members() -> Result {
        let machine = Machine::new()?;
        assert_eq!(machine.list()?, "");

        let a = machine.join(slot(0, 2, 0), 0)?;
        let b = machine.join(slot(0, 2, 0), 1)?;
        let _c = machine.join(BUS, 2)?;
        let _d = machine.join(PRIVATE, 8)?;
        open(&a)?;
        close(&a, true)?;
        open(&b)?;
        open(&a)?;
        close(&a, true)?;
        assert_eq!(
            machine.list()?,
            "slot 0000:02:00 resets 1\n  \
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
    fn domain_lives_as_long_as_it_has_members() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        open(&a)?;
        close(&a, true)?;
        drop(a);
        assert_eq!(machine.show()?, "resets 1, 1 idle clean");
        open(&b)?;
        let c = machine.join(BUS, 2)?;
        assert_eq!(machine.show()?, "resets 1, 1 open unknown, 2 idle unknown");
        close(&b, false)?;

        drop((b, c));
        let _d = machine.join(BUS, 3)?;
        assert_eq!(machine.show()?, "resets 0, 3 idle unknown");

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
            assert_eq!(
                machine.show()?,
                text_of(fmt!("private 0000:01:00.0 resets 0, 0 idle {condition}"))?.as_str()
            );
            let opening = a.open()?;
            assert_eq!(a.open().err(), Some(EBUSY));
            assert_eq!(a.close().err(), Some(EBUSY));
            assert_eq!(
                machine.show()?,
                text_of(fmt!("private 0000:01:00.0 resets 0, 0 opening {condition}"))?.as_str()
            );
            opening.succeed(true);
            assert_eq!(a.open().err(), Some(EBUSY));
            assert_eq!(
                machine.show()?,
                "private 0000:01:00.0 resets 0, 0 open unknown"
            );
            let closing = a.close()?;
            assert_eq!(a.open().err(), Some(EBUSY));
            assert_eq!(a.close().err(), Some(EBUSY));
            assert_eq!(
                machine.show()?,
                "private 0000:01:00.0 resets 0, 0 closing unknown"
            );
            closing.settle(false);
        }
        assert_eq!(
            machine.show()?,
            "private 0000:01:00.0 resets 0, 0 idle clean"
        );

        Ok(())
    }

    #[test]
    fn private_domain_is_never_reset() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(PRIVATE, 0)?;

        for dirty in [true, true, false, true] {
            open(&a)?;
            close(&a, dirty)?;
            assert_eq!(a.is_dirty(), dirty);
            drop(a.open()?);
            assert_eq!(a.is_dirty(), dirty);
        }
        open(&a)?;
        close(&a, false)?;
        open(&a)?;
        drop(a.close()?);
        assert!(a.is_dirty());
        assert_eq!(
            machine.show()?,
            "private 0000:01:00.0 resets 0, 0 idle dirty"
        );
        assert_eq!(machine.log()?, "");

        Ok(())
    }

    #[test]
    fn open_that_resets_the_function_cleans_it() -> Result {
        let (machine, a, b) = with_dirty()?;

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
        let (machine, a, b) = with_dirty()?;

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

    #[test]
    fn last_close_resets_once() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        open(&a)?;
        open(&b)?;
        assert_eq!(machine.log()?, "");

        close(&a, true)?;
        assert_eq!(machine.log()?, "0 is deferred by 1\n");
        assert_eq!(machine.show()?, "resets 0, 0 idle dirty, 1 open unknown");
        close(&b, true)?;
        assert_eq!(machine.log()?, "1 resets 0 1, 2 dirty\n");
        assert_eq!(machine.show()?, "resets 1, 0 idle clean, 1 idle clean");

        open(&a)?;
        close(&a, false)?;
        assert_eq!(machine.log()?, "");
        open(&a)?;
        close(&a, true)?;
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");
        assert_eq!(machine.show()?, "resets 2, 0 idle clean, 1 idle clean");

        Ok(())
    }

    #[test]
    fn clean_last_close_resets_a_dirty_sibling() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        open(&a)?;
        open(&b)?;

        close(&a, true)?;
        close(&b, false)?;
        assert_eq!(
            machine.log()?,
            "0 is deferred by 1\n1 resets 0 1, 1 dirty\n"
        );
        assert_eq!(machine.show()?, "resets 1, 0 idle clean, 1 idle clean");

        Ok(())
    }

    #[test]
    fn sibling_in_transit_defers_the_reset() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        open(&a)?;
        let opening = b.open()?;
        close(&a, true)?;
        assert_eq!(machine.show()?, "resets 0, 0 idle dirty, 1 opening unknown");
        opening.succeed(true);

        open(&a)?;
        let closing = b.close()?;
        close(&a, true)?;
        assert_eq!(machine.log()?, "0 is deferred by 1\n0 is deferred by 1\n");
        assert_eq!(machine.show()?, "resets 0, 0 idle dirty, 1 closing unknown");
        closing.settle(false);
        assert_eq!(machine.log()?, "1 resets 0 1, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn any_user_defers_the_reset() -> Result {
        for (closing, user, expected) in [
            (0, 1, "0 is deferred by 1\n"),
            (0, 2, "0 is deferred by 2\n"),
            (1, 0, "1 is deferred by 0\n"),
            (1, 2, "1 is deferred by 2\n"),
            (2, 0, "2 is deferred by 0\n"),
            (2, 1, "2 is deferred by 1\n"),
        ] {
            let (machine, a, b) = Machine::with_two()?;
            let members = [a, b, machine.join(BUS, 2)?];
            open(&members[closing])?;
            open(&members[user])?;

            close(&members[closing], true)?;
            assert_eq!(machine.log()?, expected);
            close(&members[user], false)?;
        }

        Ok(())
    }

    #[test]
    fn other_domains_do_not_defer_the_reset() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(BUS, 0)?;
        let b = machine.join(bus(0, 2), 1)?;
        open(&a)?;
        open(&b)?;

        close(&a, true)?;
        assert_eq!(machine.log()?, "0 resets 0, 1 dirty\n");
        assert_eq!(
            machine.show()?,
            "resets 1, 0 idle clean\nbus 0000:02 resets 0, 1 open unknown"
        );
        close(&b, false)
    }

    #[test]
    fn failed_open_makes_the_deferred_reset() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        let c = machine.join(BUS, 2)?;
        open(&a)?;
        open(&c)?;
        let opening = b.open()?;
        close(&a, true)?;
        machine.log()?;

        drop(opening);
        assert_eq!(machine.log()?, "1 is deferred by 2\n");
        let opening = b.open()?;
        close(&c, false)?;
        assert_eq!(machine.log()?, "2 is deferred by 1\n");
        drop(opening);
        assert_eq!(machine.log()?, "1 resets 0 1 2, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn close_without_a_result_leaves_the_function_dirty() -> Result {
        let (machine, a, _b) = Machine::with_two()?;

        open(&a)?;
        drop(a.close()?);
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn failed_reset_leaves_all_dirty_until_the_next_close() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        let c = machine.join(BUS, 2)?;
        machine.fail_resets(2, EIO);
        open(&a)?;
        open(&b)?;
        close(&a, true)?;
        close(&b, true)?;
        assert_eq!(
            machine.log()?,
            "0 is deferred by 1\n1 resets 0 1 2, 2 dirty\n1 fails with -5\n"
        );
        open(&c)?;
        close(&c, false)?;
        assert_eq!(machine.log()?, "2 resets 0 1 2, 2 dirty\n2 fails with -5\n");
        assert_eq!(
            machine.show()?,
            "resets 0, 0 idle dirty, 1 idle dirty, 2 idle clean"
        );

        open(&c)?;
        close(&c, false)?;
        assert_eq!(machine.log()?, "2 resets 0 1 2, 2 dirty\n");
        assert_eq!(
            machine.show()?,
            "resets 1, 0 idle clean, 1 idle clean, 2 idle clean"
        );

        Ok(())
    }

    #[test]
    fn reset_affects_the_members_of_its_time() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        open(&a)?;
        let _c = machine.join(BUS, 2)?;
        drop(b);

        close(&a, true)?;
        assert_eq!(machine.log()?, "0 resets 0 2, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn dirty_function_leaves_nothing_behind() -> Result {
        let (machine, a, b) = with_dirty()?;
        assert!(a.is_dirty());
        assert!(!b.is_dirty());

        drop(a);
        open(&b)?;
        close(&b, false)?;
        assert_eq!(machine.log()?, "");
        assert_eq!(machine.show()?, "resets 0, 1 idle clean");

        Ok(())
    }

    #[test]
    fn bindings_are_listed_with_their_ids() -> Result {
        let (_machine, a, b) = Machine::with_two()?;
        bind(&a, ME)?;
        let unbinding = a.unbind()?;

        let mut seen = 0;
        // Changes in another context are not waited for.
        b.for_each_binding(OTHER, |function, binding| match binding {
            Binding::Changing(ME) if function.address() == at(0) => seen += 1,
            Binding::Unbound if function.address() == at(1) => seen += 10,
            _ => (),
        })?;
        assert_eq!(seen, 11);
        drop(unbinding);
        bind(&a, ME)?;
        // The ID does not change with the page table.
        drop(a.attach()?);
        drop(a.detach()?);
        b.for_each_binding(ME, |_, binding| {
            seen += i32::from(binding == Binding::Bound(ME, 10));
        })?;
        assert_eq!(seen, 12);
        give_back(a);

        Ok(())
    }

    #[test]
    fn failed_binding_is_none() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(BUS, 0)?;

        drop(a.bind(ME)?);
        assert_eq!(a.unbind().err(), Some(EBUSY));
        assert_eq!(a.attach().err(), Some(EBUSY));
        bind(&a, ME)?;
        assert_eq!(a.bind(ME).err(), Some(EBUSY));
        let unbinding = a.unbind()?;
        assert_eq!(a.unbind().err(), Some(EBUSY));
        drop(unbinding);

        Ok(())
    }

    #[test]
    fn bound_members_do_not_defer_the_reset() -> Result {
        let (machine, a, b) = with_owned()?;

        // Before the unbind, as in vfio-pci.
        close(&a, true)?;
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");
        drop(a.unbind()?);
        drop(b.unbind()?);
        assert_eq!(machine.log()?, "");

        Ok(())
    }

    #[test]
    fn unbind_does_not_repeat_a_failed_reset() -> Result {
        let (machine, a, b) = with_owned()?;
        machine.fail_resets(1, EIO);

        close(&a, true)?;
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n0 fails with -5\n");
        drop(a.unbind()?);
        drop(b.unbind()?);
        assert_eq!(machine.log()?, "");

        Ok(())
    }

    #[test]
    fn unbind_makes_the_deferred_reset() -> Result {
        let (machine, a, b) = with_owned()?;

        let closing = a.close()?;
        let unbinding = b.unbind()?;
        closing.settle(true);
        assert_eq!(machine.log()?, "0 is deferred by 1\n");
        // It is reported once.
        drop(a.unbind()?);
        assert_eq!(machine.log()?, "");
        drop(unbinding);
        assert_eq!(machine.log()?, "1 resets 0 1, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn bind_makes_the_deferred_reset_if_it_fails() -> Result {
        for is_failing in [true, false] {
            let (machine, a, b) = Machine::with_two()?;
            open(&a)?;

            let closing = a.close()?;
            let binding = b.bind(ME)?;
            closing.settle(true);
            assert_eq!(machine.log()?, "0 is deferred by 1\n");
            if is_failing {
                drop(binding);
            } else {
                binding.bound(10);
                assert_eq!(machine.log()?, "");
                drop(b.unbind()?);
            }
            assert_eq!(machine.log()?, "1 resets 0 1, 1 dirty\n");
        }

        Ok(())
    }

    #[test]
    fn iommu_groups_do_not_wait_for_each_other() -> Result {
        let (machine, a, b) = with_owned()?;
        let c = machine.join(BUS, 8)?;
        bind(&c, ME)?;

        let opening = b.open()?;
        drop(c.attach()?);
        drop(opening);
        let attaching = a.attach()?;
        open(&c)?;
        close(&c, false)?;
        drop(attaching);
        give_back(c);
        give_back(b);
        give_back(a);

        Ok(())
    }

    #[test]
    fn hot_reset_is_for_the_owner_of_every_member() -> Result {
        let (machine, a, b) = with_owned()?;

        a.reset_owned(user_of(ME))?;
        open(&b)?;
        a.reset_owned(user_of(ME))?;
        close(&b, false)?;
        assert_eq!(
            machine.log()?,
            "0 resets its own 0 1\n0 resets its own 0 1\n"
        );
        assert_eq!(machine.show()?, "resets 2, 0 open unknown, 1 idle clean");

        drop(b.unbind()?);
        assert_eq!(a.reset_owned(user_of(ME)), Err(EINVAL));
        bind(&b, OTHER)?;
        assert_eq!(a.reset_owned(user_of(ME)), Err(EINVAL));
        // A member of another user may be in transit.
        let opening = b.open()?;
        assert_eq!(a.reset_owned(user_of(ME)), Err(EINVAL));
        drop(opening);
        assert_eq!(machine.log()?, "");
        give_back(b);
        give_back(a);

        Ok(())
    }

    #[test]
    fn hot_reset_cleans_unless_it_fails() -> Result {
        let (machine, a, b) = with_owned()?;
        open(&b)?;
        close(&b, true)?;

        machine.fail_resets(1, EIO);
        assert_eq!(a.reset_owned(user_of(ME)), Err(EIO));
        assert_eq!(machine.show()?, "resets 0, 0 open unknown, 1 idle dirty");
        a.reset_owned(user_of(ME))?;
        assert_eq!(machine.show()?, "resets 1, 0 open unknown, 1 idle clean");
        give_back(b);
        give_back(a);

        Ok(())
    }

    #[test]
    fn private_domain_can_be_hot_reset() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(PRIVATE, 0)?;

        open(&a)?;
        a.reset_owned(anyone)?;
        assert_eq!(machine.log()?, "0 resets its own 0\n");
        close(&a, false)
    }

    #[test]
    fn claims_are_traced_with_their_waits() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(BUS, 0)?;
        machine.trace();

        bind(&a, ME)?;
        open(&a)?;
        drop(a.attach()?);
        assert_eq!(
            machine.log()?,
            "0 waits to bind\n0 is claimed to bind\n0 is not open, bound, clean\n\
             0 waits to open\n0 is claimed to open\n0 is open, bound, clean\n\
             0 waits to attach\n0 is claimed to attach\n0 is open, bound, clean\n"
        );
        a.reset_owned(anyone)?;
        close(&a, true)?;
        drop(a.unbind()?);
        assert_eq!(
            machine.log()?,
            "0 waits to hot-reset\n0 is claimed to hot-reset\n0 resets its own 0\n\
             0 waits to close\n0 is claimed to close\n0 is not open, bound, dirty\n\
             0 resets 0, 1 dirty\n\
             0 waits to unbind\n0 is claimed to unbind\n0 is not open, unbound, clean\n"
        );
        drop(a.open()?);
        assert_eq!(
            machine.log()?,
            "0 waits to open\n0 is claimed to open\n0 is not open, unbound, clean\n"
        );

        Ok(())
    }

    #[test]
    fn refused_claims_are_traced_as_waits_only() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(BUS, 0)?;
        machine.trace();

        assert_eq!(a.close().err(), Some(EBUSY));
        assert_eq!(a.unbind().err(), Some(EBUSY));
        assert_eq!(a.reset_owned(user_of(ME)), Err(EINVAL));
        assert_eq!(
            machine.log()?,
            "0 waits to close\n0 waits to unbind\n0 waits to hot-reset\n"
        );

        Ok(())
    }

    #[test]
    fn functions_forbid_a_reset_that_affects_others() -> Result {
        for (is_member, has_virtual_functions, expected) in [
            (true, false, "none"),
            (true, true, "has virtual functions"),
            (false, false, "has an owner"),
            (false, true, "has an owner"),
        ] {
            let obstacle = Obstacle::of_affected(is_member, has_virtual_functions, || Owner(false));
            let text = match obstacle {
                Some(obstacle) => text_of(fmt!("{obstacle}"))?,
                None => text_of(fmt!("none"))?,
            };
            assert_eq!(text, expected);
        }
        for (is_unplugged, is_unbinding, expected) in [
            (false, false, None),
            (false, true, Some(EAGAIN)),
            (true, false, Some(ENODEV)),
            (true, true, Some(ENODEV)),
        ] {
            let obstacle = Obstacle::<Owner>::of_member(is_unplugged, is_unbinding, false);
            assert_eq!(obstacle.map(|obstacle| obstacle.error()), expected);
        }

        Ok(())
    }

    #[test]
    fn failures_are_transient_if_another_attempt_can_succeed() -> Result {
        let obstacle = |obstacle| ResetFailure::Obstacle(at(1), obstacle);
        for (failure, expected, retry_in, text) in [
            (
                ResetFailure::NoReset,
                false,
                None,
                "skipped: it has no such reset",
            ),
            (
                obstacle(Obstacle::VirtualFunctions),
                false,
                None,
                "skipped: 0000:01:00.1 has virtual functions",
            ),
            (
                obstacle(Obstacle::Stranger(Owner(false))),
                false,
                None,
                "skipped: 0000:01:00.1 has an owner",
            ),
            (
                obstacle(Obstacle::Stranger(Owner(true))),
                true,
                Some(100),
                "skipped: 0000:01:00.1 has an owner, next attempt in 100 ms",
            ),
            (
                obstacle(Obstacle::Unbinding { is_last: false }),
                true,
                Some(100),
                "skipped: 0000:01:00.1 is being unbound, next attempt in 100 ms",
            ),
            (
                obstacle(Obstacle::Unbinding { is_last: true }),
                false,
                None,
                "skipped: 0000:01:00.1 is being unbound",
            ),
            (
                obstacle(Obstacle::Unplugged),
                false,
                None,
                "skipped: 0000:01:00.1 was unplugged",
            ),
            (
                ResetFailure::Failed(EAGAIN),
                true,
                None,
                "failed with error -11, 2 functions stay dirty, given up until the next close",
            ),
            (
                ResetFailure::Failed(EACCES),
                true,
                Some(200),
                "failed with error -13, 2 functions stay dirty, next attempt in 200 ms",
            ),
            (
                ResetFailure::Failed(EBUSY),
                true,
                Some(200),
                "failed with error -16, 2 functions stay dirty, next attempt in 200 ms",
            ),
            (
                ResetFailure::Failed(EIO),
                false,
                None,
                "failed with error -5, 2 functions stay dirty",
            ),
        ] {
            assert_eq!(failure.is_transient(), expected);
            let is_error = matches!(failure, ResetFailure::Failed(_));
            assert_eq!(failure.is_at_will(), !is_error);
            let report = Report {
                failure: &failure,
                dirty: 2,
                retry_in,
            };
            assert_eq!(text_of(fmt!("{report}"))?, text);
        }

        Ok(())
    }

    /// The tests on the host have a clock of their own for this.
    #[cfg(CONFIG_VFIO_PCI_RS_KUNIT_TEST)]
    #[test]
    fn transient_failure_is_retried() -> Result {
        use kernel::time::{
            delay::fsleep,
            Delta, //
        };

        let (machine, a, b) = Machine::with_two()?;
        machine.fail_resets(2, EAGAIN);
        open(&a)?;
        close(&a, true)?;
        // A generous limit: this may be a slow machine.
        for _ in 0..500 {
            if !a.is_dirty() {
                break;
            }
            fsleep(Delta::from_millis(20));
        }
        assert_eq!(machine.show()?, "resets 1, 0 idle clean, 1 idle clean");

        // The last member takes a retry with it.
        machine.fail_resets(2, EAGAIN);
        open(&b)?;
        close(&b, true)?;
        drop((a, b));
        assert_eq!(machine.show()?, "");

        Ok(())
    }
}
