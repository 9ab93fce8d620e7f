// SPDX-License-Identifier: GPL-2.0

//! The registry of reset domains: joining, leaving, and the list in debugfs.

use super::{
    cleaner::Cleaner,
    domain::Domain,
    member::Member,
    Address,
    Hardware,
    Membership,
    ResetScope, //
};
use crate::bindings::work::DelayedWork;
use core::ops::Deref;
use kernel::{
    fmt,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    }, //
};

/// A domain in the registry.
struct Entry<H: Hardware> {
    domain: Arc<DelayedWork<Domain<H>>>,
    seats: usize,
}

/// The domains, and the dirty functions that have left them.
struct Entries<H: Hardware> {
    domains: KVec<Entry<H>>,
    /// With room for all members.
    debts: KVec<Address>,
}

impl<H: Hardware> Entries<H> {
    fn seats(&self) -> usize {
        self.domains.iter().map(|entry| entry.seats).sum()
    }
}

/// The reset domains of a driver.
#[pin_data]
pub(crate) struct Registry<H: Hardware> {
    #[pin]
    entries: Mutex<Entries<H>>,
}

impl<H: Hardware> Registry<H> {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                entries <- new_mutex!(
                    Entries {
                        domains: KVec::new(),
                        debts: KVec::new(),
                    },
                    "reset_domains"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes a function an idle member of the domain of `scope`, dirty if it was so when it left.
    ///
    /// Makes the domain if there is none. If `serialize` is set, no two members of the domain are
    /// opening or closing at the same time from now on. Fails with [`ENOMEM`] and no side effect.
    /// Takes the registry's lock and, after dropping it, the reflck.
    pub(crate) fn join(
        self: &Arc<Self>,
        scope: ResetScope,
        hardware: H,
        serialize: bool,
    ) -> Result<Membership<H>> {
        let seat = self.take_seat(scope)?;
        let address = hardware.address();
        let member = Member::new(&seat.members, hardware, self.has_debt(address))?;
        let cleaner = Cleaner::new(member.clone(), seat.domain.clone())?;
        let mut members = seat.members.lock();
        members.list.push(member.clone(), GFP_KERNEL)?;
        members.serialized |= serialize;
        drop(members);
        self.clear_debt(address);
        // A hot reset that waits checks whether its caller owns the new member, too.
        seat.settled.notify_all();

        Ok(Membership::new(member, cleaner, seat))
    }

    fn take_seat(self: &Arc<Self>, scope: ResetScope) -> Result<Seat<H>> {
        let mut entries = self.entries.lock();

        let members = entries.seats() + 1;
        entries.debts.reserve(members, GFP_KERNEL)?;
        let domains = &mut entries.domains;
        let domain = match domains.iter_mut().find(|entry| entry.domain.scope == scope) {
            Some(entry) => {
                entry.seats += 1;
                entry.domain.clone()
            }
            None => {
                let domain = Domain::new(scope)?;
                domains.push(
                    Entry {
                        domain: domain.clone(),
                        seats: 1,
                    },
                    GFP_KERNEL,
                )?;
                domain
            }
        };

        Ok(Seat {
            registry: self.clone(),
            domain,
        })
    }

    fn has_debt(&self, address: Address) -> bool {
        self.entries
            .lock()
            .debts
            .iter()
            .any(|&debt| debt == address)
    }

    fn clear_debt(&self, address: Address) {
        self.entries.lock().debts.retain(|debt| *debt != address);
    }

    /// Calls `f` with each dirty function that has left. Takes the registry's lock meanwhile.
    pub(crate) fn for_each_debt(&self, f: impl FnMut(&Address)) {
        self.entries.lock().debts.iter().for_each(f);
    }
}

/// A seat in a domain, for one member. The last seat to go frees the domain.
pub(super) struct Seat<H: Hardware> {
    registry: Arc<Registry<H>>,
    domain: Arc<DelayedWork<Domain<H>>>,
}

impl<H: Hardware> Deref for Seat<H> {
    type Target = DelayedWork<Domain<H>>;

    fn deref(&self) -> &Self::Target {
        &self.domain
    }
}

impl<H: Hardware> Seat<H> {
    /// Records that the function at `address` is dirty when it leaves. Takes the registry's lock.
    pub(super) fn keep_debt(&self, address: Address) {
        // There is room for it.
        let _ = self
            .registry
            .entries
            .lock()
            .debts
            .push_within_capacity(address);
    }
}

impl<H: Hardware> Drop for Seat<H> {
    /// Takes the registry's lock. The fields are dropped after that, with no lock held.
    fn drop(&mut self) {
        self.registry.entries.lock().domains.retain(|entry| {
            if Arc::ptr_eq(&entry.domain, &self.domain) {
                entry.seats -= 1;
            }
            entry.seats > 0
        });
    }
}

/// The list of domains and members, as in the debugfs file `reset_domains`.
///
/// Takes the registry's lock, and after that one reflck at a time. Waits for a reset in progress,
/// without blocking probe and remove.
impl<H: Hardware> fmt::Display for Registry<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut domains = KVec::new();
        for entry in self.entries.lock().domains.iter() {
            domains
                .push(entry.domain.clone(), GFP_KERNEL)
                .map_err(|_| fmt::Error)?;
        }

        for domain in &domains {
            let members = domain.members.lock();
            // Its first member has not joined yet, or its last one has left.
            if members.list.is_empty() {
                continue;
            }
            f.write_fmt(fmt!("{} resets {}", domain.scope, members.resets))?;
            if members.failed > 0 {
                f.write_fmt(fmt!(" failed {}", members.failed))?;
            }
            f.write_str("\n")?;
            for member in &members.list {
                f.write_fmt(fmt!(
                    "  {} {} {}\n",
                    member.hardware.address(),
                    member.state.access(&members).claim,
                    member.condition_name(&members)
                ))?;
            }
        }

        Ok(())
    }
}
