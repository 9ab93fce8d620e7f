// SPDX-License-Identifier: GPL-2.0

//! The status of members, and the resets that root asks for.

use super::*;
use crate::reflck::{
    fake::reset_now,
    Owed,
    Status, //
};

#[cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, kunit_tests(vfio_pci_rs_status))]
mod suite {
    use super::*;

    #[test]
    fn status_is_published() -> Result {
        let (machine, a, b) = Machine::with_two()?;
        let published = |status, is_settled| {
            a.hardware().has_published(status, is_settled) && a.status() == status
        };

        b.bind(ME)?.bound(1);
        drop(b.unbind()?);
        assert!(published(Status::Unknown, true));
        let opening = a.open()?;
        assert!(published(Status::InUse, false));
        opening.succeed(true);
        assert!(published(Status::InUse, false));
        // The work does not end before the next line.
        a.hardware().fail_alone(6, EAGAIN);
        a.close()?.finish_later();
        assert!(published(Status::Cleaning, false));
        a.finish_cleaning();
        assert!(published(Status::Clean, true));
        open(&b)?;
        assert!(published(Status::Clean, false));
        open(&a)?;
        close(&a, true)?;
        // The reset may come when its sibling is closed.
        assert!(published(Status::Dirty, false));
        machine.fail_resets(1, EIO);
        close(&b, false)?;
        assert!(published(Status::Dirty, true));
        a.bind(ME)?.bound(1);
        assert!(published(Status::InUse, true));
        drop(a.unbind()?);
        a.reset_now(true)?;
        a.finish_cleaning();
        assert!(published(Status::Clean, true));

        Ok(())
    }

    #[test]
    fn root_can_ask_for_a_reset() -> Result {
        let (machine, a, b) = Machine::with_two()?;

        machine.fail_resets(2, EIO);
        open(&a)?;
        close(&a, true)?;
        assert_eq!((a.owed(), b.owed()), (Owed::Domain, Owed::Nothing));
        machine.log()?;
        assert_eq!(a.reset_now(true), Err(EIO));
        open(&b)?;
        assert_eq!(a.reset_now(true), Err(EBUSY));
        assert_eq!(b.reset_now(true), Err(EBUSY));
        machine.fail_resets(1, EIO);
        close(&b, false)?;
        machine.log()?;
        assert_eq!(a.reset_now(true), Ok(()));
        assert_eq!(machine.log()?, "0 resets 0 1, 1 dirty\n");
        assert_eq!((a.status().name(), *a.scope()), ("clean", BUS));
        // One that is not dirty is reset alone.
        assert_eq!(b.reset_now(true), Ok(()));
        assert_eq!(b.reset_now(true), Err(EBUSY));
        b.finish_cleaning();
        assert_eq!(machine.log()?, "");
        // One that cannot be is reset with its domain, if there is one.
        assert_eq!(reset_now(&b, false), Ok(()));
        assert_eq!(machine.log()?, "1 resets 0 1, 0 dirty\n");
        let private = machine.join(ResetScope::Private(at(2)), 2)?;
        assert_eq!(private.reset_now(false), Err(ENOTTY));

        Ok(())
    }

    #[test]
    fn users_are_listed() -> Result {
        let (_machine, a, b) = Machine::with_two()?;
        let users = || a.survey(|used, settled| (used.count(), settled.is_some()));

        assert_eq!(users(), (0, true));
        open(&b)?;
        assert_eq!(users(), (1, true));
        let closing = b.close()?;
        assert_eq!(users(), (1, false));
        closing.settle(false);

        Ok(())
    }
}
