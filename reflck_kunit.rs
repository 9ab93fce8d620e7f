// SPDX-License-Identifier: GPL-2.0

//! KUnit suite of `reflck.rs`: domains, claims and refusals in the kernel's own locks and
//! allocations. `tools/testing/reflck` has what needs more than that: threads, failing allocations.

use crate::reflck::{
    Address,
    Binding,
    Event,
    Hardware,
    Membership,
    Owned,
    Registry,
    ResetScope,
    Unused, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// What the reflck has asked of a bus that is not there.
struct Bus {
    resets: Atomic<u32>,
    deferred: Atomic<u32>,
    /// How many functions the last hot reset affected.
    hot_reset_members: Atomic<usize>,
    /// Functions that have not been dropped.
    functions: Atomic<u32>,
    /// Whether a reset fails.
    broken: Atomic<bool>,
    /// Whether a reset fails for now.
    busy: Atomic<bool>,
}

/// A function of it.
struct Fake {
    address: Address,
    bus: Arc<Bus>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.bus.functions.fetch_sub(1, Relaxed);
    }
}

impl Hardware for Fake {
    type Context = u8;

    type Failure = Error;

    fn address(&self) -> Address {
        self.address
    }

    fn reset_unused(&self, _scope: &ResetScope, unused: &Unused<'_, Self>) -> Result {
        if self.bus.broken.load(Relaxed) || !unused.contains(self.address) {
            return Err(EIO);
        }
        if self.bus.busy.load(Relaxed) {
            return Err(EAGAIN);
        }
        self.bus.resets.fetch_add(1, Relaxed);

        Ok(())
    }

    fn reset_owned(&self, _scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        if self.bus.broken.load(Relaxed) || !owned.contains(self.address) {
            return Err(EIO);
        }
        self.bus.hot_reset_members.store(owned.len(), Relaxed);

        Ok(())
    }

    fn shares_iommu_group(&self, _other: &Self) -> bool {
        true
    }

    fn notify(&self, _scope: &ResetScope, event: Event<'_, Self>) {
        if let Event::Deferred { .. } = event {
            self.bus.deferred.fetch_add(1, Relaxed);
        }
    }
}

/// A registry, and a bus whose functions join it.
struct Machine {
    registry: Arc<Registry<Fake>>,
    bus: Arc<Bus>,
}

impl Machine {
    const SCOPE: ResetScope = ResetScope::Bus { segment: 0, bus: 1 };

    fn new() -> Result<Self> {
        Ok(Self {
            registry: Registry::new()?,
            bus: Arc::new(
                Bus {
                    resets: Atomic::new(0),
                    deferred: Atomic::new(0),
                    hot_reset_members: Atomic::new(0),
                    functions: Atomic::new(0),
                    broken: Atomic::new(false),
                    busy: Atomic::new(false),
                },
                GFP_KERNEL,
            )?,
        })
    }

    /// Makes a function that joins `scope`.
    fn join(&self, scope: ResetScope, function: u8) -> Result<Membership<Fake>> {
        self.bus.functions.fetch_add(1, Relaxed);
        self.registry.join(
            scope,
            Fake {
                address: Address {
                    segment: 0,
                    bus: 1,
                    devfn: function,
                },
                bus: self.bus.clone(),
            },
        )
    }

    /// Returns whether the registry is shown as `text`.
    fn shows(&self, text: &str) -> Result<bool> {
        let shown = kernel::str::CString::try_from_fmt(fmt!("{}", *self.registry))?;

        Ok(shown.to_bytes() == text.as_bytes())
    }

    /// Returns how many resets were asked for and how many were deferred.
    fn asked(&self) -> (u32, u32) {
        (
            self.bus.resets.load(Relaxed),
            self.bus.deferred.load(Relaxed),
        )
    }
}

#[kunit_tests(vfio_pci_rs_reflck)]
mod tests {
    use super::*;

    #[test]
    fn equal_scopes_share_a_domain_and_the_last_leaver_frees_it() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(Machine::SCOPE, 1)?;

        assert!(machine.shows(
            "bus 0000:01 resets 0\n  0000:01:00.0 idle clean\n  0000:01:00.1 idle clean\n"
        )?);
        drop(a);
        assert!(machine.shows("bus 0000:01 resets 0\n  0000:01:00.1 idle clean\n")?);
        drop(b);
        assert!(machine.shows("")?);
        assert_eq!(machine.bus.functions.load(Relaxed), 0);

        Ok(())
    }

    #[test]
    fn other_scopes_are_other_domains() -> Result {
        let machine = Machine::new()?;
        let slot = ResetScope::Slot {
            segment: 0,
            bus: 1,
            number: 0,
        };
        let _a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(slot, 1)?;
        let c = machine.join(ResetScope::Private(b.hardware().address()), 2)?;

        assert!(machine.shows(
            "bus 0000:01 resets 0\n  0000:01:00.0 idle clean\n\
             slot 0000:01:00 resets 0\n  0000:01:00.1 idle clean\n\
             private 0000:01:00.1 resets 0\n  0000:01:00.2 idle clean\n"
        )?);
        // Nothing but its own reset cleans what is private.
        c.open()?.succeed(true);
        c.close()?.settle(true);
        assert!(c.is_dirty());
        assert_eq!(machine.asked(), (0, 0));

        Ok(())
    }

    #[test]
    fn claims_refuse_what_is_not_their_turn() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;

        assert!(a.close().is_err());
        let opening = a.open()?;
        assert!(a.open().is_err());
        assert!(a.close().is_err());
        opening.succeed(true);
        assert!(a.open().is_err());
        let closing = a.close()?;
        assert!(a.open().is_err());
        assert!(a.close().is_err());
        closing.settle(false);
        assert!(machine.shows("bus 0000:01 resets 0\n  0000:01:00.0 idle clean\n")?);
        assert_eq!(machine.asked(), (0, 0));

        Ok(())
    }

    #[test]
    fn last_release_resets_once() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(Machine::SCOPE, 1)?;

        a.open()?.succeed(true);
        b.open()?.succeed(true);
        a.close()?.settle(true);
        assert_eq!(machine.asked(), (0, 1));
        assert!(machine.shows(
            "bus 0000:01 resets 0\n  0000:01:00.0 idle dirty\n  0000:01:00.1 open clean\n"
        )?);
        b.close()?.settle(true);
        assert_eq!(machine.asked(), (1, 1));
        assert!(machine.shows(
            "bus 0000:01 resets 1\n  0000:01:00.0 idle clean\n  0000:01:00.1 idle clean\n"
        )?);

        Ok(())
    }

    #[test]
    fn failed_open_counts_as_a_release() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(Machine::SCOPE, 1)?;

        a.open()?.succeed(true);
        let opening = b.open()?;
        a.close()?.settle(true);
        assert_eq!(machine.asked(), (0, 1));
        drop(opening);
        assert_eq!(machine.asked(), (1, 1));
        assert!(!a.is_dirty());

        Ok(())
    }

    #[test]
    fn failed_reset_leaves_everything_dirty_until_the_next_release() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;

        machine.bus.broken.store(true, Relaxed);
        a.open()?.succeed(true);
        // A claim that is dropped says that nothing is known: dirty.
        drop(a.close()?);
        assert!(machine.shows("bus 0000:01 resets 0\n  0000:01:00.0 idle dirty\n")?);

        machine.bus.broken.store(false, Relaxed);
        a.open()?.succeed(true);
        a.close()?.settle(true);
        assert!(machine.shows("bus 0000:01 resets 1\n  0000:01:00.0 idle clean\n")?);

        Ok(())
    }

    #[test]
    fn reset_that_fails_for_now_is_tried_again() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(Machine::SCOPE, 1)?;

        machine.bus.busy.store(true, Relaxed);
        a.open()?.succeed(true);
        a.close()?.settle(true);
        assert!(a.is_dirty());
        machine.bus.busy.store(false, Relaxed);
        // A generous limit: this may be a slow machine.
        for _ in 0..500 {
            if !a.is_dirty() {
                break;
            }
            fsleep(Delta::from_millis(20));
        }
        assert!(!a.is_dirty());

        // Whatever is still due when the last member leaves goes with the domain.
        machine.bus.busy.store(true, Relaxed);
        b.open()?.succeed(true);
        b.close()?.settle(true);
        drop(a);
        drop(b);
        assert!(machine.shows("")?);

        Ok(())
    }

    #[test]
    fn bound_members_are_in_use() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;

        assert!(a.unbind().is_err());
        assert!(a.attach().is_err());
        a.bind(1)?.bound(10);
        assert!(a.bind(1).is_err());
        drop(a.attach()?);
        a.open()?.succeed(true);
        a.close()?.settle(true);
        // It is idle, but iommufd is not done with it.
        assert_eq!(machine.asked(), (0, 0));
        let unbinding = a.unbind()?;
        assert!(a.unbind().is_err());
        drop(unbinding);
        assert_eq!(machine.asked(), (1, 0));
        assert!(!a.is_dirty());

        Ok(())
    }

    #[test]
    fn hot_reset_is_for_the_owner_of_every_member() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(Machine::SCOPE, 1)?;
        let bound_to_1 = |_: &Fake, binding| matches!(binding, Binding::Bound(1, _));

        a.bind(1)?.bound(10);
        a.open()?.succeed(true);
        b.open()?.succeed(true);
        b.close()?.settle(true);
        assert_eq!(a.reset_owned(bound_to_1), Err(EINVAL));
        b.bind(2)?.bound(20);
        assert_eq!(a.reset_owned(bound_to_1), Err(EINVAL));
        drop(b.unbind()?);
        b.bind(1)?.bound(11);
        assert!(b.is_dirty());
        assert_eq!(a.reset_owned(bound_to_1), Ok(()));
        assert!(!b.is_dirty());
        assert_eq!(machine.bus.hot_reset_members.load(Relaxed), 2);

        machine.bus.broken.store(true, Relaxed);
        assert_eq!(a.reset_owned(bound_to_1), Err(EIO));
        assert!(machine.shows(
            "bus 0000:01 resets 1\n  0000:01:00.0 open clean\n  0000:01:00.1 idle clean\n"
        )?);
        drop(b.unbind()?);
        a.close()?.settle(false);
        drop(a.unbind()?);

        Ok(())
    }

    #[test]
    fn bindings_are_listed() -> Result {
        let machine = Machine::new()?;
        let a = machine.join(Machine::SCOPE, 0)?;
        let b = machine.join(Machine::SCOPE, 1)?;
        a.bind(1)?.bound(10);

        let mut bound = 0;
        let mut unbound = 0;
        b.for_each_binding(1, |hardware, binding| match binding {
            Binding::Bound(1, 10) => bound += u32::from(hardware.address().devfn == 0),
            Binding::Unbound => unbound += u32::from(hardware.address().devfn == 1),
            _ => (),
        });
        assert_eq!((bound, unbound), (1, 1));
        drop(a.unbind()?);

        Ok(())
    }
}
