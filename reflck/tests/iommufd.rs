// SPDX-License-Identifier: GPL-2.0

//! Bindings by iommufd, and hot resets by the owner of all members.

use super::*;

#[cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, kunit_tests(vfio_pci_rs_iommufd))]
mod suite {
    use super::*;

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
}
