// SPDX-License-Identifier: GPL-2.0

//! Traces, and the texts of failures.

use super::*;
use crate::reflck::{
    Failure,
    Obstacle,
    Report,
    ResetFailure,
    Stranger, //
};
use kernel::fmt;

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

    fn is_bindable(&self) -> bool {
        !self.0
    }
}

/// Returns the failure of a reset that functions from the first one on do not allow.
fn obstacles<const N: usize>(obstacles: [Obstacle<Owner>; N]) -> Result<ResetFailure<Owner>> {
    let mut list = KVec::new();
    for (number, obstacle) in (1..).zip(obstacles) {
        list.push((at(number), obstacle), GFP_KERNEL)?;
    }

    Ok(ResetFailure::Obstacles((at(0), Obstacle::Gone), list))
}

/// Returns the text about a failure that leaves two functions dirty.
fn report(failure: &ResetFailure<Owner>, retry_in: Option<u32>) -> Result<Text> {
    let report = Report {
        failure,
        driver: "me",
        dirty: 2,
        retry_in,
    };

    text_of(fmt!("{report}"))
}

#[cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, kunit_tests(vfio_pci_rs_reports))]
mod suite {
    use super::*;

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
        for (is_unplugged, is_unbinding, is_disabled, expected) in [
            (false, false, false, None),
            (false, false, true, Some(EINVAL)),
            (false, true, true, Some(EAGAIN)),
            (true, false, false, Some(ENODEV)),
            (true, true, true, Some(ENODEV)),
        ] {
            let obstacle =
                Obstacle::<Owner>::of_member(is_unplugged, is_unbinding, false, is_disabled);
            assert_eq!(obstacle.map(|obstacle| obstacle.error()), expected);
        }

        Ok(())
    }

    #[test]
    fn failures_are_transient_if_another_attempt_can_succeed() -> Result {
        let unbinding = |is_last| Obstacle::Unbinding { is_last };
        for (obstacle, is_transient, text) in [
            (Obstacle::VirtualFunctions, false, "has virtual functions"),
            (
                Obstacle::Stranger(Owner(false)),
                false,
                "has an owner; bind each: driverctl set-override ADDRESS me",
            ),
            (Obstacle::Stranger(Owner(true)), true, "has an owner"),
            (unbinding(false), true, "is being unbound"),
            (unbinding(true), false, "is being unbound"),
            (
                Obstacle::Disabled,
                false,
                "must not be reset, as its reset_method is empty",
            ),
            (Obstacle::Unplugged, false, "was unplugged"),
            (Obstacle::Gone, false, "does not answer"),
        ] {
            let failure = obstacles([obstacle])?;
            assert_eq!(failure.is_transient(), is_transient);
            assert!(failure.is_at_will());
            let retry_in = is_transient.then_some(100);
            let next = if is_transient {
                ", next attempt in 100 ms"
            } else {
                ""
            };
            let expected = text_of(fmt!("skipped: 0000:01:00.1 {text}{next}"))?;
            assert_eq!(report(&failure, retry_in)?, expected.as_str());
        }
        for (error, is_transient, retry_in, text) in [
            (
                EAGAIN,
                true,
                None,
                "-11, 2 functions stay dirty, given up until the next close",
            ),
            (
                EACCES,
                true,
                Some(200),
                "-13, 2 functions stay dirty, next attempt in 200 ms",
            ),
            (
                EBUSY,
                true,
                Some(200),
                "-16, 2 functions stay dirty, next attempt in 200 ms",
            ),
            (EIO, false, None, "-5, 2 functions stay dirty"),
        ] {
            let failure = ResetFailure::<Owner>::Failed(error);
            assert_eq!(failure.is_transient(), is_transient);
            assert!(!failure.is_at_will());
            let expected = text_of(fmt!("failed with error {text}"))?;
            assert_eq!(report(&failure, retry_in)?, expected.as_str());
        }
        for (changing, text) in [
            (
                [false, false],
                "; bind each: driverctl set-override ADDRESS me",
            ),
            ([true, false], ""),
            ([true, true], ", given up until the next close"),
        ] {
            let failure = obstacles(changing.map(|changing| Obstacle::Stranger(Owner(changing))))?;
            assert_eq!(failure.is_transient(), changing == [true, true]);
            let expected = text_of(fmt!(
                "skipped: 0000:01:00.1 has an owner, 0000:01:00.2 has an owner{text}"
            ))?;
            assert_eq!(report(&failure, None)?, expected.as_str());
        }
        let failure = ResetFailure::<Owner>::Obstacles((at(3), Obstacle::Gone), KVec::new());
        assert!(!failure.is_transient());
        assert_eq!(
            report(&failure, None)?,
            "skipped: 0000:01:00.3 does not answer"
        );
        let failure = ResetFailure::<Owner>::NoReset;
        assert!(!failure.is_transient() && failure.is_at_will());
        assert_eq!(report(&failure, None)?, "skipped: it has no such reset");

        Ok(())
    }
}
