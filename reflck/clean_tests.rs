// SPDX-License-Identifier: GPL-2.0

//! Tests of members that are clean, and of the work that cleans them, on fake hardware.
//!
//! KUnit runs them in the kernel, `cargo test` on the host. There the work runs when a test waits
//! for it.

use super::{
    fake::{
        at,
        close,
        open,
        Fake,
        Machine,
        BUS, //
    },
    Membership,
    Owed,
    Status, //
};
use crate::bindings::work::Work;
use kernel::prelude::*;

const ME: u8 = 1;

/// Closes a member by work, and waits for that.
fn close_later(member: &Membership<Fake>) -> Result {
    member.close()?.finish_later();
    member.finish_cleaning();

    Ok(())
}

/// Opens a member, and skips its reset if it is clean. Returns whether it was.
fn open_clean(member: &Membership<Fake>) -> Result<bool> {
    let opening = member.open()?;
    let is_clean = member.is_clean();
    if is_clean {
        member.hardware().skip_reset();
    }
    opening.succeed(true);

    Ok(is_clean)
}

#[cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, kunit_tests(vfio_pci_rs_clean))]
mod suite {
    use super::*;

    #[test]
    fn closed_member_is_clean_for_one_open() -> Result {
        let (machine, a, b) = Machine::with_two()?;

        assert!(!open_clean(&a)?);
        close(&a, false)?;
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle unknown");
        assert!(open_clean(&a)?);
        assert!(!a.is_clean());
        close_later(&a)?;
        assert!(open_clean(&a)?);
        close_later(&a)?;
        assert!(!open_clean(&b)?);
        assert_eq!(machine.log()?, "");

        close_later(&b)
    }

    #[test]
    fn touched_member_is_not_clean() -> Result {
        let (machine, a, _b) = Machine::with_two()?;

        open(&a)?;
        close_later(&a)?;
        a.hardware().touch();
        assert_eq!(machine.show()?, "resets 0, 0 idle unknown, 1 idle unknown");
        assert!(!open_clean(&a)?);

        close_later(&a)
    }

    #[test]
    fn work_that_cannot_clean_a_member_resets_the_domain() -> Result {
        let (machine, a, b) = Machine::with_two()?;

        a.hardware().fail_alone(1, EIO);
        b.hardware().fail_alone(1, EIO);
        open(&a)?;
        open(&b)?;
        close_later(&a)?;
        assert_eq!(machine.show()?, "resets 0, 0 idle dirty, 1 open unknown");
        close_later(&b)?;
        assert_eq!(machine.show()?, "resets 1, 0 idle clean, 1 idle clean");
        assert_eq!(
            machine.log()?,
            "0 is deferred by 1\n1 resets 0 1, 2 dirty\n"
        );

        Ok(())
    }

    #[test]
    fn work_that_finds_a_lock_held_tries_again() -> Result {
        let (machine, a, _b) = Machine::with_two()?;

        a.hardware().fail_alone(6, EAGAIN);
        open(&a)?;
        close_later(&a)?;
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle unknown");
        a.hardware().fail_alone(7, EAGAIN);
        open(&a)?;
        close_later(&a)?;
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");

        Ok(())
    }

    #[test]
    fn dirty_member_is_not_clean() -> Result {
        let (machine, a, b) = Machine::with_two()?;

        // Its last reset has worked, and nothing has touched it since, but its user.
        a.reset_later();
        a.finish_cleaning();
        open(&b)?;
        assert!(open_clean(&a)?);
        close(&a, true)?;
        assert_eq!(a.owed(), Owed::Function);
        a.hardware().prove();
        assert!(!open_clean(&a)?);
        close(&a, false)?;
        assert_eq!(machine.log()?, "0 is deferred by 1\n");

        close(&b, false)
    }

    #[test]
    fn new_member_is_reset_by_work() -> Result {
        let (machine, a, b) = Machine::with_two()?;

        a.hardware().fail_alone(3, EAGAIN);
        a.reset_later();
        a.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle unknown");
        b.hardware().fail_alone(7, EAGAIN);
        b.reset_later();
        b.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle unknown");
        b.hardware().fail_alone(1, EIO);
        b.reset_later();
        b.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle unknown");
        assert!(open_clean(&a)?);

        close_later(&a)
    }

    #[test]
    fn member_within_reach_is_reset_again_when_it_is_out_of_reach() -> Result {
        let (machine, a, _b) = Machine::with_two()?;

        open(&a)?;
        a.hardware().expose(true);
        close_later(&a)?;
        assert_eq!(machine.show()?, "resets 0, 0 idle unknown, 1 idle unknown");
        for delay in (1..16).map(|looks| 10 << looks) {
            assert_eq!(a.cleaner.run(), Some(delay));
        }
        assert_eq!(a.cleaner.run(), None);
        a.hardware().expose(false);
        assert!(!open_clean(&a)?);
        assert_eq!(a.cleaner.run(), None);
        a.hardware().expose(true);
        close_later(&a)?;
        assert_eq!(a.cleaner.run(), Some(20));
        a.hardware().expose(false);
        assert_eq!(a.cleaner.run(), Some(0));
        assert_eq!(a.status(), Status::Cleaning);
        a.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 idle unknown");
        assert_eq!(a.cleaner.run(), None);
        assert!(open_clean(&a)?);

        close_later(&a)
    }

    #[test]
    fn second_reset_of_a_member_that_was_within_reach_can_fail() -> Result {
        let (machine, a, _b) = Machine::with_two()?;

        open(&a)?;
        a.hardware().expose(true);
        close_later(&a)?;
        a.hardware().expose(false);
        a.hardware().fail_alone(1, EIO);
        assert_eq!(a.cleaner.run(), Some(0));
        a.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 idle unknown, 1 idle unknown");
        assert!(!open_clean(&a)?);

        close_later(&a)
    }

    #[test]
    fn new_member_that_is_in_use_is_left_alone() -> Result {
        let (machine, a, b) = Machine::with_two()?;

        open(&a)?;
        a.reset_later();
        a.finish_cleaning();
        b.bind(ME)?.bound(1);
        b.reset_later();
        b.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 open unknown, 1 idle unknown");
        close(&a, false)?;
        drop(b.unbind()?);

        Ok(())
    }

    #[test]
    fn open_of_a_dirty_member_resets_the_unused_domain_first() -> Result {
        let (machine, a, b) = Machine::with_dirty()?;

        let opening = a.open()?;
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");
        assert_eq!(machine.show()?, "resets 1, 0 opening clean, 1 idle clean");
        opening.succeed(false);
        open(&b)?;
        machine.fail_resets(1, EIO);
        close(&a, true)?;
        // Not while a sibling is in use.
        a.open()?.succeed(false);
        assert_eq!(machine.log()?, "0 is deferred by 1\n");
        close(&b, false)?;

        close(&a, false)
    }

    #[test]
    fn debt_outlives_the_membership() -> Result {
        let (machine, a, b) = Machine::with_dirty()?;

        drop(a);
        let mut debts = 0;
        machine.registry.for_each_debt(|address| {
            debts += usize::from(*address == at(0));
        });
        assert_eq!(debts, 1);
        let a = machine.join(BUS, 0)?;
        assert_eq!(machine.show()?, "resets 0, 1 idle unknown, 0 idle dirty");
        a.publish();
        assert!(a.hardware().has_published(Status::Dirty, true));
        machine.registry.for_each_debt(|_| debts += 1);
        assert_eq!(debts, 1);
        a.hardware().fail_alone(1, EIO);
        a.reset_later();
        a.finish_cleaning();
        assert_eq!(machine.log()?, "0 resets 1 0, 1 dirty\n");
        drop((a, b));
        machine.registry.for_each_debt(|_| debts += 1);
        assert_eq!(debts, 1);

        Ok(())
    }

    #[test]
    fn debt_is_forgiven_by_a_reset_at_unbind() -> Result {
        let (machine, a, _b) = Machine::with_dirty()?;

        a.hardware().forgive();
        a.forgive();
        drop(a);
        let a = machine.join(BUS, 0)?;
        assert!(!a.is_dirty());

        Ok(())
    }

    #[test]
    fn root_can_want_a_reset_of_the_domain() -> Result {
        let (machine, a, _b) = Machine::with_two()?;

        a.hardware().want_domain();
        // That reset makes it clean.
        assert!(open_clean(&a)?);
        assert_eq!(machine.log()?, "0 resets 0 1, 0 dirty\n");
        close_later(&a)?;
        assert_eq!(machine.log()?, "0 resets 0 1, 0 dirty\n");
        open(&a)?;
        close(&a, false)?;
        assert_eq!(machine.log()?, "0 resets 0 1, 0 dirty\n");
        // It was clean before, and is as clean after that.
        machine.fail_resets(1, EIO);
        open(&a)?;
        close(&a, false)?;
        assert!(!a.is_dirty());
        machine.log()?;
        assert_eq!(a.reset_now(true), Ok(()));
        assert_eq!(machine.log()?, "0 resets 0 1, 0 dirty\n");

        Ok(())
    }
}
