// SPDX-License-Identifier: GPL-2.0

//! Resets at the last close of a domain.

use super::*;

#[cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, kunit_tests(vfio_pci_rs_resets))]
mod suite {
    use super::*;

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
        assert_eq!(machine.show()?, private("idle dirty")?.as_str());
        assert_eq!(machine.log()?, "");

        Ok(())
    }

    #[test]
    fn serialized_members_are_reset_one_at_a_time() -> Result {
        let machine = Machine::new()?;
        let a = machine.join_serialized(BUS, 0)?;
        let b = machine.join(BUS, 1)?;

        open(&b)?;
        let closing = b.close()?;
        a.reset_later();
        assert_eq!(a.reset_now(true), Err(EBUSY));
        assert_eq!(
            machine.show()?,
            "resets 0, 0 idle unknown, 1 closing unknown"
        );
        closing.settle(false);
        // The siblings of one that is reset alone are left alone.
        open(&b)?;
        assert_eq!(a.reset_now(true), Ok(()));
        a.finish_cleaning();
        assert_eq!(machine.show()?, "resets 0, 0 idle clean, 1 open unknown");
        assert_eq!(machine.log()?, "");

        close(&b, false)
    }
}
