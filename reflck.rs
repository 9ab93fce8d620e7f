// SPDX-License-Identifier: GPL-2.0

//! The reflck: one lock for each reset domain, and what it guards.
//!
//! A reset domain is the set of functions that one slot or bus reset affects. Its functions must
//! agree on one thing only: who is in use when such a reset runs. So the reflck guards, for each
//! member of the domain, a [`Claim`] and whether the member is dirty, that is, still owed a reset.
//! It is not held while a single function is enabled, reset or quiesced.
//!
//! - [`Registry::join`] makes a function a member of its domain, which is found or made. The
//!   [`Membership`] ends when it is dropped, and the last one frees the domain.
//! - [`Membership::open`] and [`Membership::close`] claim a member for the time that it is in
//!   transit. The claims they return settle what came of it.
//! - Whatever makes a member idle looks whether the whole domain is unused now and something in it
//!   is dirty, and if so asks [`Hardware`] for a reset, before anyone can claim a member again.
//!
//! There is no hardware in here: that is the business of whoever implements [`Hardware`], which is
//! `reset.rs` for the driver.
//!
//! # Locking
//!
//! The registry's lock is taken to join and to leave, that is in probe and remove, and to list the
//! domains. It and a reflck are never held together, so that a domain which is being reset holds up
//! no other. Vfio's group lock and the `dev_set->lock` of the device stand outside both;
//! `pci_bus_sem`, runtime PM and device locks, which are only tried, stand inside the reflck. No
//! function in here may be called in atomic context.

use crate::vfio::address::{
    Address,
    ResetScope, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        LockedBy,
        Mutex, //
    }, //
};

/// What a reset domain needs of the hardware: one of these for each function.
pub(crate) trait Hardware: Send + Sync + Sized + 'static {
    /// Returns the address of the function.
    fn address(&self) -> Address;

    /// Attempts the slot or bus reset that `scope` stands for.
    ///
    /// Called on the member that has just become idle, with the reflck held. `unused` proves that
    /// no member is in use. On success every member has been reset and is on its way back to
    /// D3hot; on error they count as dirty as before.
    fn reset(&self, scope: &ResetScope, unused: &Unused<'_, Self>) -> Result;

    /// Told, with the reflck held, that something in the domain is dirty, but cannot be reset
    /// because the function at address `user` is in use.
    fn reset_deferred(&self, scope: &ResetScope, user: Address);
}

/// Who has a function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    /// Nobody. The function can be claimed, and can be reset together with its siblings.
    Idle,
    /// A user is being given the function: it is enabled and reset outside the reflck.
    Opening,
    /// A user.
    Open,
    /// A user is giving the function back: it is quiesced and reset outside the reflck.
    Closing,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
        })
    }
}

/// What the reflck guards of a member.
struct State {
    claim: Claim,
    /// The function has been used and has not been reset since.
    dirty: bool,
}

/// A function in a reset domain.
struct Member<H> {
    hardware: H,
    state: LockedBy<State, Members<H>>,
}

/// What the reflck guards of a domain.
struct Members<H> {
    list: KVec<Arc<Member<H>>>,
    /// How many slot or bus resets the domain has seen.
    resets: u64,
}

impl<H: Hardware> Members<H> {
    /// Returns the first member that is in use, in transit included.
    fn user(&self) -> Option<&Member<H>> {
        self.list
            .iter()
            .find(|member| member.state.access(self).claim != Claim::Idle)
            .map(|member| &**member)
    }

    fn dirty(&self) -> usize {
        self.list
            .iter()
            .filter(|member| member.state.access(self).dirty)
            .count()
    }

    fn clean_all(&mut self) {
        for i in 0..self.list.len() {
            let member = self.list[i].clone();
            member.state.access_mut(self).dirty = false;
        }
    }
}

/// The members of a domain, none of which is in use for as long as this is borrowed.
pub(crate) struct Unused<'a, H>(&'a Members<H>);

impl<H: Hardware> Unused<'_, H> {
    /// Returns how many members there are.
    pub(crate) fn len(&self) -> usize {
        self.0.list.len()
    }

    /// Returns how many of the members are dirty.
    pub(crate) fn dirty(&self) -> usize {
        self.0.dirty()
    }

    /// Returns the hardware of each member.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &H> + Clone {
        self.0.list.iter().map(|member| &member.hardware)
    }

    /// Returns whether the function at `address` is a member.
    pub(crate) fn contains(&self, address: Address) -> bool {
        self.iter().any(|hardware| hardware.address() == address)
    }
}

/// A reset domain and its lock.
#[pin_data]
struct Reflck<H> {
    scope: ResetScope,
    #[pin]
    members: Mutex<Members<H>>,
}

impl<H: Hardware> Reflck<H> {
    fn new(scope: ResetScope) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                scope,
                members <- new_mutex!(
                    Members {
                        list: KVec::new(),
                        resets: 0,
                    },
                    "reflck"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes `member` idle. If that leaves the domain unused and something in it dirty, has it
    /// reset before anybody can claim a member.
    ///
    /// `dirty` says whether the member is dirty now; `None` leaves it as it was.
    fn release(&self, member: &Member<H>, dirty: Option<bool>) {
        let mut members = self.members.lock();
        let state = member.state.access_mut(&mut members);

        state.claim = Claim::Idle;
        if let Some(dirty) = dirty {
            state.dirty = dirty;
        }

        // Nothing but its own reset can clean a function in a domain of its own.
        if matches!(self.scope, ResetScope::Private(_)) || members.dirty() == 0 {
            return;
        }

        if let Some(user) = members.user() {
            let user = user.hardware.address();
            member.hardware.reset_deferred(&self.scope, user);
            return;
        }

        if member
            .hardware
            .reset(&self.scope, &Unused(&members))
            .is_ok()
        {
            members.resets += 1;
            members.clean_all();
        }
    }
}

/// A domain in the registry.
struct Domain<H> {
    reflck: Arc<Reflck<H>>,
    /// How many functions are members, or about to be.
    places: usize,
}

/// The reset domains of a driver.
#[pin_data]
pub(crate) struct Registry<H: Hardware> {
    #[pin]
    domains: Mutex<KVec<Domain<H>>>,
}

impl<H: Hardware> Registry<H> {
    /// Makes a registry without any domain.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                domains <- new_mutex!(KVec::new(), "reset_domains"),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes a function a member of the domain of `scope`, which is made if there is none.
    ///
    /// The member is idle and clean. Gives [`ENOMEM`], and has changed nothing then. Takes the
    /// registry's lock, and after that the reflck.
    pub(crate) fn join(self: &Arc<Self>, scope: ResetScope, hardware: H) -> Result<Membership<H>> {
        let place = self.take_place(scope)?;
        let member = Arc::new(
            Member {
                hardware,
                state: LockedBy::new(
                    &place.reflck.members,
                    State {
                        claim: Claim::Idle,
                        dirty: false,
                    },
                ),
            },
            GFP_KERNEL,
        )?;
        place
            .reflck
            .members
            .lock()
            .list
            .push(member.clone(), GFP_KERNEL)?;

        Ok(Membership { member, place })
    }

    /// Takes a place in the domain of `scope`, which is made if there is none.
    fn take_place(self: &Arc<Self>, scope: ResetScope) -> Result<Place<H>> {
        let mut domains = self.domains.lock();

        if let Some(domain) = domains
            .iter_mut()
            .find(|domain| domain.reflck.scope == scope)
        {
            domain.places += 1;
            return Ok(Place {
                registry: self.clone(),
                reflck: domain.reflck.clone(),
            });
        }

        let reflck = Reflck::new(scope)?;
        domains.push(
            Domain {
                reflck: reflck.clone(),
                places: 1,
            },
            GFP_KERNEL,
        )?;

        Ok(Place {
            registry: self.clone(),
            reflck,
        })
    }
}

/// A place in a domain, for a member. The domain goes when the last place does.
struct Place<H: Hardware> {
    registry: Arc<Registry<H>>,
    reflck: Arc<Reflck<H>>,
}

impl<H: Hardware> Drop for Place<H> {
    fn drop(&mut self) {
        self.registry.domains.lock().retain(|domain| {
            if Arc::ptr_eq(&domain.reflck, &self.reflck) {
                domain.places -= 1;
            }
            domain.places > 0
        });
    }
}

/// Lists the domains and their members: what the file `reset_domains` in debugfs shows.
///
/// Takes the registry's lock, and after that one reflck at a time: it waits for a reset of a
/// domain that is under way, but lets probe and remove go on meanwhile.
impl<H: Hardware> fmt::Display for Registry<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut domains = KVec::new();
        for domain in self.domains.lock().iter() {
            domains
                .push(domain.reflck.clone(), GFP_KERNEL)
                .map_err(|_| fmt::Error)?;
        }

        for reflck in &domains {
            let members = reflck.members.lock();
            if members.list.is_empty() {
                // The first member is still to come, or the last one has left.
                continue;
            }
            f.write_fmt(fmt!("{} resets {}\n", reflck.scope, members.resets))?;
            for member in &members.list {
                let State { claim, dirty } = member.state.access(&members);
                let dirty = if *dirty { "dirty" } else { "clean" };
                f.write_fmt(fmt!("  {} {claim} {dirty}\n", member.hardware.address()))?;
            }
        }

        Ok(())
    }
}

/// The membership of a function in its reset domain. Dropping it leaves the domain.
///
/// # Invariants
///
/// `member` is in the list of the domain that it has a place in.
pub(crate) struct Membership<H: Hardware> {
    member: Arc<Member<H>>,
    place: Place<H>,
}

impl<H: Hardware> Membership<H> {
    /// Returns the hardware of the member.
    pub(crate) fn hardware(&self) -> &H {
        &self.member.hardware
    }

    /// Returns whether the member is dirty. Takes the reflck.
    pub(crate) fn is_dirty(&self) -> bool {
        let members = self.place.reflck.members.lock();

        self.member.state.access(&members).dirty
    }

    /// Moves the member on to `to`, if it is at `from`; gives [`EBUSY`] if it is not.
    fn transit(&self, from: Claim, to: Claim) -> Result {
        let mut members = self.place.reflck.members.lock();
        let state = self.member.state.access_mut(&mut members);

        if state.claim != from {
            return Err(EBUSY);
        }
        state.claim = to;

        Ok(())
    }

    /// Claims an idle member for a user: it is opening from now on.
    ///
    /// Waits for a reset of the domain that is under way. Gives [`EBUSY`] if the member is not
    /// idle. Takes the reflck.
    pub(crate) fn open(&self) -> Result<Opening<'_, H>> {
        self.transit(Claim::Idle, Claim::Opening)?;

        Ok(Opening(Transit(self)))
    }

    /// Takes an open member back from its user: it is closing from now on.
    ///
    /// Gives [`EBUSY`] if the member is not open. Takes the reflck.
    pub(crate) fn close(&self) -> Result<Closing<'_, H>> {
        self.transit(Claim::Open, Claim::Closing)?;

        Ok(Closing(Transit(self)))
    }
}

impl<H: Hardware> Drop for Membership<H> {
    /// Waits for a reset of the domain that is under way. Takes the reflck, and after that the
    /// registry's lock.
    fn drop(&mut self) {
        let mut members = self.place.reflck.members.lock();

        // A device is unregistered only when nobody has it open any more.
        kernel::warn_on!(self.member.state.access(&members).claim != Claim::Idle);
        members
            .list
            .retain(|other| !Arc::ptr_eq(other, &self.member));
    }
}

/// A member in transit: it is opening or closing.
struct Transit<'a, H: Hardware>(&'a Membership<H>);

impl<H: Hardware> Transit<'_, H> {
    fn release(&self, dirty: Option<bool>) {
        self.0.place.reflck.release(&self.0.member, dirty);
    }
}

/// The claim on a member that is opening.
///
/// Dropping it says that opening has failed. This counts as a release: the member is idle again, as
/// dirty as it was before, and the domain may have become unused by it.
#[must_use = "dropping the claim says that opening has failed"]
pub(crate) struct Opening<'a, H: Hardware>(Transit<'a, H>);

impl<H: Hardware> Opening<'_, H> {
    /// Says that the member is open. Takes the reflck.
    pub(crate) fn succeed(self) {
        // Only the owner of the claim can move the member on, so it is still opening.
        let settled = self.0 .0.transit(Claim::Opening, Claim::Open);
        kernel::warn_on!(settled.is_err());
        core::mem::forget(self);
    }
}

impl<H: Hardware> Drop for Opening<'_, H> {
    fn drop(&mut self) {
        self.0.release(None);
    }
}

/// The claim on a member that is closing.
///
/// Dropping it says that nothing is known about how far closing got: the member is idle, and dirty.
#[must_use = "dropping the claim says that the function was left dirty"]
pub(crate) struct Closing<'a, H: Hardware>(Transit<'a, H>);

impl<H: Hardware> Closing<'_, H> {
    /// Says that the member is idle, and whether it is still owed a reset. If the domain is unused
    /// now, and something in it dirty, resets the domain.
    ///
    /// Takes the reflck, and keeps it during the reset.
    pub(crate) fn settle(self, dirty: bool) {
        self.0.release(Some(dirty));
        core::mem::forget(self);
    }
}

impl<H: Hardware> Drop for Closing<'_, H> {
    fn drop(&mut self) {
        self.0.release(Some(true));
    }
}
