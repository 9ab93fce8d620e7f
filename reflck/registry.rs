// SPDX-License-Identifier: GPL-2.0

//! The registry of reset domains: joining, leaving, and the list in debugfs.

use super::{
    domain::Domain,
    member::{
        Member,
        State, //
    },
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

/// The reset domains of a driver.
#[pin_data]
pub(crate) struct Registry<H: Hardware> {
    #[pin]
    domains: Mutex<KVec<Entry<H>>>,
}

impl<H: Hardware> Registry<H> {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                domains <- new_mutex!(KVec::new(), "reset_domains"),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes a function a member of the domain of `scope`, idle and clean.
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
        let member = Member::new(&seat.members, hardware)?;
        let mut members = seat.members.lock();
        members.list.push(member.clone(), GFP_KERNEL)?;
        members.serialized |= serialize;
        drop(members);
        // A hot reset that waits checks whether its caller owns the new member, too.
        seat.settled.notify_all();

        Ok(Membership::new(member, seat))
    }

    fn take_seat(self: &Arc<Self>, scope: ResetScope) -> Result<Seat<H>> {
        let mut domains = self.domains.lock();

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

impl<H: Hardware> Drop for Seat<H> {
    /// Takes the registry's lock. The fields are dropped after that, with no lock held.
    fn drop(&mut self) {
        self.registry.domains.lock().retain(|entry| {
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
        for entry in self.domains.lock().iter() {
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
                let State { claim, dirty, .. } = member.state.access(&members);
                let dirty = if *dirty { "dirty" } else { "clean" };
                f.write_fmt(fmt!("  {} {claim} {dirty}\n", member.hardware.address()))?;
            }
        }

        Ok(())
    }
}
