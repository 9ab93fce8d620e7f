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
//! - [`Membership::bind`], [`Membership::unbind`] and [`Membership::attach`] do the same for what
//!   iommufd does to a member. A member that is bound to an iommufd is in use. None is attached
//!   while another one of its IOMMU group is opening or closing.
//! - [`Membership::hot_reset`] resets the domain for somebody who owns every member, once none of
//!   them is in transit.
//! - Whatever makes a member unused looks whether the whole domain is unused now and something in
//!   it is dirty, and if so asks [`Hardware`] for a reset, before anyone can claim a member again.
//! - A reset that has failed for a reason that may pass is tried again some time later, unless
//!   somebody claims a member before.
//!
//! There is no hardware in here: that is the business of whoever implements [`Hardware`], which is
//! `reset.rs` for the driver.
//!
//! # Locking
//!
//! The registry's lock is taken to join and to leave, that is in probe and remove, and to list the
//! domains. It and a reflck are never held together, so that a domain which is being reset holds up
//! no other. Vfio's group lock and the `dev_set->lock` of the device stand outside both;
//! `pci_bus_sem`, runtime PM, which takes the `memory_lock` of a function that it wakes, and device
//! locks and the `memory_lock`s of a hot reset, which are only tried, stand inside the reflck. The
//! work that tries a reset again takes the reflck, so it is waited for, when the last member
//! leaves, with neither lock held. No function in here may be called in atomic context.

use crate::vfio::{
    address::{
        Address,
        ResetScope, //
    },
    delayed_work::{
        DelayedWork,
        Work, //
    },
};
use core::ops::Deref;
use kernel::{
    fmt,
    prelude::*,
    sync::{
        new_condvar,
        new_mutex,
        Arc,
        CondVar,
        LockedBy,
        Mutex, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// What a reset domain needs of the hardware: one of these for each function.
pub(crate) trait Hardware: Send + Sync + Sized + 'static {
    /// Tells one iommufd context from another.
    type Context: Copy + Eq + Send + Sync;

    /// Returns the address of the function.
    fn address(&self) -> Address;

    /// Attempts the slot or bus reset that `scope` stands for.
    ///
    /// Called on the member that has just become idle, or on a dirty one if this is tried again,
    /// with the reflck held. `unused` proves that no member is in use. On success every member has
    /// been reset and is on its way back to D3hot; on error they count as dirty as before.
    ///
    /// [`EAGAIN`] is the error for a reason that may pass: then this is tried again in `retry_in`
    /// milliseconds, or given up if that is `None`.
    fn reset(&self, scope: &ResetScope, unused: &Unused<'_, Self>, retry_in: Option<u32>)
        -> Result;

    /// Attempts the same reset, with members in use, all of which belong to the user who asks for
    /// it.
    ///
    /// Called on a member that is open, with the reflck held. `owned` proves that no member is in
    /// transit. Keeps the user away from the open ones meanwhile.
    fn hot_reset(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result;

    /// Returns whether the function is in the same IOMMU group as `other`. Called with the reflck
    /// held.
    fn shares_iommu_group(&self, other: &Self) -> bool;

    /// Told, with the reflck held, that something in the domain is dirty, but cannot be reset
    /// because the function at address `user` is in use.
    fn reset_deferred(&self, scope: &ResetScope, user: Address);

    /// Told what happens to the member, for whoever wants to see where time goes. Must not sleep.
    fn trace(&self, scope: &ResetScope, event: TraceEvent);
}

/// What a function is put into transit for, or the domain made to hold still for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// A user opens the function.
    Open,
    /// A user releases it.
    Release,
    /// iommufd binds it.
    Bind,
    /// iommufd unbinds it.
    Unbind,
    /// iommufd changes what it is attached to.
    Attach,
    /// A user who has the whole domain resets it.
    HotReset,
}

/// What [`Hardware::trace`] is told of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TraceEvent {
    /// The reflck is about to be taken, and what has to be waited for with it. Not held yet. No
    /// [`TraceEvent::Claim`] follows if it is refused.
    Wait(Purpose),
    /// What was waited for has come, after this time: the member is in transit, or the domain holds
    /// still. Told with the reflck held.
    Claim(Purpose, Delta),
    /// The member is not in transit any more. Told with the reflck held, before the reset that may
    /// follow from it.
    Settle {
        /// Whether it is open.
        open: bool,
        /// Whether it is bound to an iommufd.
        bound: bool,
        /// Whether it is dirty.
        dirty: bool,
    },
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

/// What iommufd has of a function.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Binding<C> {
    /// Nothing.
    Unbound,
    /// The function is being bound to this context or unbound from it, or what it is attached to in
    /// there changes, outside the reflck.
    Changing(C),
    /// The function is bound to this context, where it has this ID.
    Bound(C, u32),
}

/// What the reflck guards of a member.
struct State<C> {
    claim: Claim,
    binding: Binding<C>,
    /// The function has been used and has not been reset since.
    dirty: bool,
}

impl<C: Copy + Eq> State<C> {
    fn is_used(&self) -> bool {
        self.claim != Claim::Idle || self.binding != Binding::Unbound
    }

    /// Whether the function is enabled or quiesced, which includes its reset.
    fn is_opening_or_closing(&self) -> bool {
        matches!(self.claim, Claim::Opening | Claim::Closing)
    }

    fn is_rebinding(&self) -> bool {
        matches!(self.binding, Binding::Changing(_))
    }

    fn is_in_transit(&self) -> bool {
        self.is_opening_or_closing() || self.is_rebinding()
    }
}

/// A function in a reset domain.
struct Member<H: Hardware> {
    hardware: H,
    state: LockedBy<State<H::Context>, Members<H>>,
}

/// What the reflck guards of a domain.
struct Members<H: Hardware> {
    list: KVec<Arc<Member<H>>>,
    /// How many slot or bus resets the domain has seen.
    resets: u64,
    /// How many attempts at a reset have failed, if there will be another one; else 0.
    failed: u32,
    /// How many hot resets wait for members in transit.
    waiting: usize,
}

impl<H: Hardware> Members<H> {
    /// Returns the first member that is in use, in transit included.
    fn user(&self) -> Option<&Member<H>> {
        self.list
            .iter()
            .find(|member| member.state.access(self).is_used())
            .map(|member| &**member)
    }

    /// Returns what iommufd has of each member.
    fn bindings(&self) -> impl Iterator<Item = (&H, Binding<H::Context>)> {
        self.list
            .iter()
            .map(|member| (&member.hardware, member.state.access(self).binding))
    }

    fn is_in_transit(&self) -> bool {
        self.list
            .iter()
            .any(|member| member.state.access(self).is_in_transit())
    }

    /// Returns whether `is` holds for another member of the IOMMU group of `member`.
    fn any_of_group(&self, member: &Member<H>, is: fn(&State<H::Context>) -> bool) -> bool {
        self.list.iter().any(|other| {
            is(other.state.access(self))
                && !core::ptr::eq(&**other, member)
                && other.hardware.shares_iommu_group(&member.hardware)
        })
    }

    fn dirty(&self) -> usize {
        self.list
            .iter()
            .filter(|member| member.state.access(self).dirty)
            .count()
    }

    /// Returns the first member that is dirty.
    fn first_dirty(&self) -> Option<Arc<Member<H>>> {
        self.list
            .iter()
            .find(|member| member.state.access(self).dirty)
            .cloned()
    }

    fn clean_all(&mut self) {
        for i in 0..self.list.len() {
            let member = self.list[i].clone();
            member.state.access_mut(self).dirty = false;
        }
    }
}

/// The members of a domain, none of which is in transit for as long as this is borrowed.
pub(crate) struct Still<'a, H: Hardware>(&'a Members<H>);

impl<H: Hardware> Still<'_, H> {
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

/// The members of a domain, none of which is in use for as long as this is borrowed.
pub(crate) struct Unused<'a, H: Hardware>(Still<'a, H>);

impl<'a, H: Hardware> Deref for Unused<'a, H> {
    type Target = Still<'a, H>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The members of a domain, all of which belong to one user, and none of which is in transit, for
/// as long as this is borrowed.
pub(crate) struct Owned<'a, H: Hardware>(Still<'a, H>);

impl<'a, H: Hardware> Deref for Owned<'a, H> {
    type Target = Still<'a, H>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The lock of a reset domain, and what it guards.
#[pin_data]
struct Reflck<H: Hardware> {
    scope: ResetScope,
    #[pin]
    members: Mutex<Members<H>>,
    /// Notified when a member is not in transit any more.
    #[pin]
    settled: CondVar,
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
                        failed: 0,
                        waiting: 0,
                    },
                    "reflck"
                ),
                settled <- new_condvar!("reflck_settled"),
            }),
            GFP_KERNEL,
        )
    }

    /// Has the domain reset by the hardware of one of its members, if it is unused. Returns after
    /// how many milliseconds to try again, if that is worth it.
    fn reset_unused(&self, members: &mut Members<H>, hardware: &H) -> Option<u32> {
        if let Some(user) = members.user() {
            hardware.reset_deferred(&self.scope, user.hardware.address());
            return None;
        }

        let retry_in = RETRY_DELAYS_MS.get(members.failed as usize).copied();
        match hardware.reset(&self.scope, &Unused(Still(members)), retry_in) {
            Ok(()) => {
                members.resets += 1;
                members.clean_all();
            }
            Err(EAGAIN) if retry_in.is_some() => {
                members.failed += 1;
                return retry_in;
            }
            Err(_) => (),
        }
        members.failed = 0;

        None
    }
}

/// How long to wait before each further attempt at a reset. Whoever binds, unbinds or resets a
/// function holds its device lock for so long at most, if nothing is wrong.
const RETRY_DELAYS_MS: [u32; 8] = [100, 200, 400, 800, 1600, 3200, 6400, 12800];

/// Tries the reset of an unused domain again.
struct Retry<H: Hardware>(Arc<Reflck<H>>);

impl<H: Hardware> Work for Retry<H> {
    /// Takes the reflck, and keeps it during the reset.
    fn run(&self) -> Option<u32> {
        let mut members = self.0.members.lock();

        // Somebody claimed a member when this had begun already.
        if members.failed == 0 {
            return None;
        }
        // What was dirty may have left.
        let Some(dirty) = members.first_dirty() else {
            members.failed = 0;
            return None;
        };

        self.0.reset_unused(&mut members, &dirty.hardware)
    }
}

/// A reset domain.
#[pin_data]
struct Domain<H: Hardware> {
    reflck: Arc<Reflck<H>>,
    /// Scheduled if the last attempt at a reset has failed.
    #[pin]
    retry: DelayedWork<Retry<H>>,
}

impl<H: Hardware> Domain<H> {
    fn new(scope: ResetScope) -> Result<Arc<Self>> {
        let reflck = Reflck::new(scope)?;

        Arc::pin_init(
            pin_init!(Self {
                retry <- DelayedWork::new(Retry(reflck.clone())),
                reflck,
            }),
            GFP_KERNEL,
        )
    }

    /// Moves `member` on with `change`. If that leaves the domain unused and something in it dirty,
    /// has it reset before anybody can claim a member.
    fn settle(&self, member: &Member<H>, change: impl FnOnce(&mut State<H::Context>)) {
        let reflck = &self.reflck;
        let mut members = reflck.members.lock();
        let state = member.state.access_mut(&mut members);

        change(state);
        member.hardware.trace(
            &reflck.scope,
            TraceEvent::Settle {
                open: state.claim == Claim::Open,
                bound: state.binding != Binding::Unbound,
                dirty: state.dirty,
            },
        );
        let is_used = state.is_used();
        reflck.settled.notify_all();

        // Nothing but its own reset can clean a function in a domain of its own. One that is still
        // used comes here again.
        if is_used || matches!(reflck.scope, ResetScope::Private(_)) || members.dirty() == 0 {
            return;
        }

        if let Some(ms) = reflck.reset_unused(&mut members, &member.hardware) {
            self.retry.schedule(ms);
        }
    }
}

/// A domain in the registry.
struct Entry<H: Hardware> {
    domain: Arc<Domain<H>>,
    /// How many functions are members, or about to be.
    places: usize,
}

/// The reset domains of a driver.
#[pin_data]
pub(crate) struct Registry<H: Hardware> {
    #[pin]
    domains: Mutex<KVec<Entry<H>>>,
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
                    &place.domain.reflck.members,
                    State {
                        claim: Claim::Idle,
                        binding: Binding::Unbound,
                        dirty: false,
                    },
                ),
            },
            GFP_KERNEL,
        )?;
        place
            .domain
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

        if let Some(entry) = domains
            .iter_mut()
            .find(|entry| entry.domain.reflck.scope == scope)
        {
            entry.places += 1;
            return Ok(Place {
                registry: self.clone(),
                domain: entry.domain.clone(),
            });
        }

        let domain = Domain::new(scope)?;
        domains.push(
            Entry {
                domain: domain.clone(),
                places: 1,
            },
            GFP_KERNEL,
        )?;

        Ok(Place {
            registry: self.clone(),
            domain,
        })
    }
}

/// A place in a domain, for a member. The domain goes when the last place does.
struct Place<H: Hardware> {
    registry: Arc<Registry<H>>,
    domain: Arc<Domain<H>>,
}

impl<H: Hardware> Drop for Place<H> {
    fn drop(&mut self) {
        self.registry.domains.lock().retain(|entry| {
            if Arc::ptr_eq(&entry.domain, &self.domain) {
                entry.places -= 1;
            }
            entry.places > 0
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
        for entry in self.domains.lock().iter() {
            domains
                .push(entry.domain.clone(), GFP_KERNEL)
                .map_err(|_| fmt::Error)?;
        }

        for domain in &domains {
            let reflck = &domain.reflck;
            let members = reflck.members.lock();
            if members.list.is_empty() {
                // The first member is still to come, or the last one has left.
                continue;
            }
            f.write_fmt(fmt!("{} resets {}", reflck.scope, members.resets))?;
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
        let members = self.place.domain.reflck.members.lock();

        self.member.state.access(&members).dirty
    }

    /// Puts the member into transit with `change`, which gives [`EBUSY`] and changes nothing if the
    /// member is not where it has to be for that.
    ///
    /// Waits until `excludes` holds for no other member of its IOMMU group.
    ///
    /// A hot reset that waits for others to settle comes first: it would never find them all
    /// settled. Another attempt at a reset that has failed is given up: the next one is made when
    /// the domain is unused again. Takes the reflck.
    fn depart<R>(
        &self,
        purpose: Purpose,
        excludes: fn(&State<H::Context>) -> bool,
        change: impl FnOnce(&mut State<H::Context>) -> Result<R>,
    ) -> Result<R> {
        let Domain { reflck, retry } = &*self.place.domain;
        let wait = Wait::new(self, purpose);
        let mut members = reflck.members.lock();

        while members.waiting > 0 || members.any_of_group(&self.member, excludes) {
            reflck.settled.wait(&mut members);
        }
        let departed = change(self.member.state.access_mut(&mut members))?;
        wait.end();
        if members.failed > 0 {
            members.failed = 0;
            retry.cancel();
        }

        Ok(departed)
    }

    /// Moves the claim on the member on to `to`, if it is at `from`.
    ///
    /// An IOMMU group cannot be attached to something else while a function in it that has ATS is
    /// reset: the two exclude each other.
    fn reclaim(&self, purpose: Purpose, from: Claim, to: Claim) -> Result {
        self.depart(purpose, State::is_rebinding, |state| {
            if state.claim != from {
                return Err(EBUSY);
            }
            state.claim = to;

            Ok(())
        })
    }

    /// Claims an idle member for a user: it is opening from now on.
    ///
    /// Waits for a reset of the domain that is under way, for a hot reset that waits itself, and
    /// for other members of the IOMMU group that are in the hands of iommufd. Gives [`EBUSY`] if
    /// the member is not idle. Takes the reflck.
    pub(crate) fn open(&self) -> Result<Opening<'_, H>> {
        self.reclaim(Purpose::Open, Claim::Idle, Claim::Opening)?;

        Ok(Opening(Transit(self)))
    }

    /// Takes an open member back from its user: it is closing from now on.
    ///
    /// Waits for the same as [`Membership::open`]: the reset can be a hot reset only. Gives
    /// [`EBUSY`] if the member is not open. Takes the reflck.
    pub(crate) fn close(&self) -> Result<Closing<'_, H>> {
        self.reclaim(Purpose::Release, Claim::Open, Claim::Closing)?;

        Ok(Closing(Transit(self)))
    }

    /// Has iommufd bind the member to `context`: it is in use from now on.
    ///
    /// Waits for a reset of the domain that is under way, and for a hot reset that waits itself.
    /// Gives [`EBUSY`] if the member is bound. Takes the reflck.
    pub(crate) fn bind(&self, context: H::Context) -> Result<NewBinding<'_, H>> {
        let rebinding = self.rebind(Purpose::Bind, |binding| match binding {
            Binding::Unbound => Some((context, Binding::Unbound)),
            _ => None,
        })?;

        Ok(NewBinding(rebinding))
    }

    /// Has iommufd unbind the member: it is unused when that is done, unless it is open.
    ///
    /// Waits for the same as [`Membership::bind`]. Gives [`EBUSY`] if the member is not bound.
    /// Takes the reflck.
    pub(crate) fn unbind(&self) -> Result<Rebinding<'_, H>> {
        self.rebind(Purpose::Unbind, |binding| match binding {
            Binding::Bound(context, _) => Some((context, Binding::Unbound)),
            _ => None,
        })
    }

    /// Has iommufd change what the bound member is attached to.
    ///
    /// Waits for the same as [`Membership::bind`], and for other members of the IOMMU group that
    /// are opening or closing. Gives [`EBUSY`] if the member is not bound. Takes the reflck.
    pub(crate) fn attach(&self) -> Result<Rebinding<'_, H>> {
        self.rebind(Purpose::Attach, |binding| match binding {
            Binding::Bound(context, _) => Some((context, binding)),
            _ => None,
        })
    }

    /// Puts the member into the hands of iommufd, if `decide` says for which context, and what its
    /// binding is after that.
    fn rebind(
        &self,
        purpose: Purpose,
        decide: impl FnOnce(Binding<H::Context>) -> Option<(H::Context, Binding<H::Context>)>,
    ) -> Result<Rebinding<'_, H>> {
        let excludes: fn(&State<H::Context>) -> bool = match purpose {
            Purpose::Attach => State::is_opening_or_closing,
            // To be bound attaches nothing yet, and to be unbound detaches, which the IOMMU core
            // lets succeed in any case.
            _ => |_| false,
        };
        let (context, after) = self.depart(purpose, excludes, |state| {
            let (context, after) = decide(state.binding).ok_or(EBUSY)?;
            state.binding = Binding::Changing(context);

            Ok((context, after))
        })?;

        Ok(Rebinding {
            transit: Transit(self),
            context,
            after,
        })
    }

    /// Resets the slot or bus for the user who owns every member according to `owns`, which is told
    /// what iommufd has of it.
    ///
    /// Waits until no member is in transit, and has none begin meanwhile. Gives [`EINVAL`] if a
    /// member is not the user's, else the errors of [`Hardware::hot_reset`]. Takes the reflck, and
    /// keeps it during the reset. The caller knows that this member stays open.
    pub(crate) fn hot_reset(&self, owns: impl Fn(&H, Binding<H::Context>) -> bool) -> Result {
        let reflck = &self.place.domain.reflck;
        let wait = Wait::new(self, Purpose::HotReset);
        let mut members = reflck.members.lock();

        members.waiting += 1;
        let result = loop {
            // Those of others may be in transit: they are not waited for.
            if !members
                .bindings()
                .all(|(member, binding)| owns(member, binding))
            {
                break Err(EINVAL);
            }
            if !members.is_in_transit() {
                wait.end();
                let owned = Owned(Still(&members));
                break self.hardware().hot_reset(&reflck.scope, &owned);
            }
            reflck.settled.wait(&mut members);
        };
        members.waiting -= 1;
        reflck.settled.notify_all();

        if result.is_ok() {
            members.resets += 1;
            members.clean_all();
        }

        result
    }

    /// Calls `f` with each member of the domain and what iommufd has of it.
    ///
    /// Waits until no binding to `context` is being changed, so that each has its ID. Takes the
    /// reflck, and keeps it during the calls.
    pub(crate) fn for_each_binding(
        &self,
        context: H::Context,
        mut f: impl FnMut(&H, Binding<H::Context>),
    ) {
        let reflck = &self.place.domain.reflck;
        let mut members = reflck.members.lock();

        while members
            .bindings()
            .any(|(_, binding)| binding == Binding::Changing(context))
        {
            reflck.settled.wait(&mut members);
        }
        for (member, binding) in members.bindings() {
            f(member, binding);
        }
    }
}

impl<H: Hardware> Drop for Membership<H> {
    /// Waits for a reset of the domain that is under way. Takes the reflck, and after that the
    /// registry's lock. The last member to leave waits for the work that tries a reset again.
    fn drop(&mut self) {
        let mut members = self.place.domain.reflck.members.lock();

        // A device is unregistered only when nobody has it open any more.
        kernel::warn_on!(self.member.state.access(&members).is_used());
        members
            .list
            .retain(|other| !Arc::ptr_eq(other, &self.member));
    }
}

/// A wait for the reflck and, with it, for others to settle, which is traced.
struct Wait<'a, H: Hardware> {
    membership: &'a Membership<H>,
    purpose: Purpose,
    start: Instant<Monotonic>,
}

impl<'a, H: Hardware> Wait<'a, H> {
    fn new(membership: &'a Membership<H>, purpose: Purpose) -> Self {
        let this = Self {
            membership,
            purpose,
            start: Instant::now(),
        };
        this.trace(TraceEvent::Wait(purpose));

        this
    }

    /// Says that nothing is waited for any more. Called with the reflck held.
    fn end(self) {
        self.trace(TraceEvent::Claim(self.purpose, self.start.elapsed()));
    }

    fn trace(&self, event: TraceEvent) {
        let Membership { member, place } = self.membership;

        member.hardware.trace(&place.domain.reflck.scope, event);
    }
}

/// A member in transit: it is opening, closing, or in the hands of iommufd.
struct Transit<'a, H: Hardware>(&'a Membership<H>);

impl<H: Hardware> Transit<'_, H> {
    /// Moves the member on, out of transit.
    fn settle(&self, change: impl FnOnce(&mut State<H::Context>)) {
        self.0.place.domain.settle(&self.0.member, change);
    }

    /// Makes the member idle. `dirty` says whether it is dirty now; `None` leaves it as it was.
    fn release(&self, dirty: Option<bool>) {
        self.settle(|state| {
            state.claim = Claim::Idle;
            state.dirty = dirty.unwrap_or(state.dirty);
        });
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
        self.0.settle(|state| state.claim = Claim::Open);
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

/// The binding of a member, in the hands of iommufd.
///
/// Dropping it says that it is done. A member that is neither bound nor open then has been
/// released, and the domain may have become unused by it.
#[must_use = "dropping the claim says that iommufd is done"]
pub(crate) struct Rebinding<'a, H: Hardware> {
    transit: Transit<'a, H>,
    context: H::Context,
    after: Binding<H::Context>,
}

impl<H: Hardware> Drop for Rebinding<'_, H> {
    fn drop(&mut self) {
        self.transit.settle(|state| state.binding = self.after);
    }
}

/// The binding of a member that was not bound, in the hands of iommufd.
///
/// Dropping it says that it could not be bound.
#[must_use = "dropping the claim says that iommufd has not bound the member"]
pub(crate) struct NewBinding<'a, H: Hardware>(Rebinding<'a, H>);

impl<H: Hardware> NewBinding<'_, H> {
    /// Says that the member is bound, and has the ID `id` in its context.
    pub(crate) fn bound(mut self, id: u32) {
        self.0.after = Binding::Bound(self.0.context, id);
    }
}
