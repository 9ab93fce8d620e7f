// SPDX-License-Identifier: GPL-2.0

//! The membership of a function in its reset domain.

use super::{
    claim::{
        Closing,
        NewBinding,
        Opening,
        Rebinding, //
    },
    cleaner::Cleaner,
    member::{
        Binding,
        Claim,
        Condition,
        Member,
        Owned,
        State, //
    },
    registry::Seat,
    Event,
    Hardware,
    Purpose, //
};
use crate::bindings::work::DelayedWork;
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// The membership of a function in its reset domain. Dropping it leaves the domain.
///
/// # Invariants
///
/// `member` is in the list of the domain of `seat`, and `cleaner` is its work.
pub(crate) struct Membership<H: Hardware> {
    pub(super) member: Arc<Member<H>>,
    pub(super) cleaner: Arc<DelayedWork<Cleaner<H>>>,
    pub(super) seat: Seat<H>,
}

impl<H: Hardware> Membership<H> {
    /// `member` must be in the list of the domain of `seat`, and `cleaner` be its work.
    pub(super) fn new(
        member: Arc<Member<H>>,
        cleaner: Arc<DelayedWork<Cleaner<H>>>,
        seat: Seat<H>,
    ) -> Self {
        // INVARIANT: By the requirement above.
        Self {
            member,
            cleaner,
            seat,
        }
    }

    pub(crate) fn hardware(&self) -> &H {
        &self.member.hardware
    }

    /// Takes the reflck.
    pub(crate) fn is_dirty(&self) -> bool {
        let members = self.seat.members.lock();

        self.member.state.access(&members).is_dirty()
    }

    /// Records that the function was reset while it is being unbound. Takes the reflck.
    pub(crate) fn forgive(&self) {
        let mut members = self.seat.members.lock();

        self.member.state.access_mut(&mut members).condition = Condition::Unknown;
    }

    /// Puts the member in transit with `change`.
    ///
    /// `change` fails with [`EBUSY`] and no side effect if the state does not allow it. Waits for
    /// the members that the purpose excludes. Hot resets and transitions that have waited longer go
    /// first: they would starve if new transitions kept beginning. Fails like [`Domain::wait`].
    /// Cancels a retry, as the next close attempts the reset again. Only unbinding leaves the retry
    /// of the close before it alone. Takes the reflck.
    ///
    /// [`Domain::wait`]: super::domain::Domain::wait
    fn begin_transit<R>(
        &self,
        purpose: Purpose,
        change: impl FnOnce(&mut State<H::Context>) -> Result<R>,
    ) -> Result<R> {
        let wait = Wait::new(self, purpose);
        let mut members = self.seat.members.lock();

        self.wait_for_turn(&mut members, purpose)?;
        if purpose == Purpose::Open {
            self.seat.reset_before_open(&mut members, &self.member);
        }
        let changed = change(self.member.state.access_mut(&mut members))?;
        wait.end();
        if members.failed > 0 && purpose != Purpose::Unbind {
            members.failed = 0;
            members.owed = true;
            self.seat.cancel();
        }
        members.publish();

        Ok(changed)
    }

    /// Changes the claim on the member, which must be `from`, to `to`.
    fn move_claim(&self, purpose: Purpose, from: Claim, to: Claim) -> Result {
        self.begin_transit(purpose, |state| {
            if state.claim != from {
                return Err(EBUSY);
            }
            state.claim = to;

            Ok(())
        })
    }

    /// Claims an idle member for a user. If it is dirty, a reset of the domain is attempted before.
    ///
    /// Waits for a reset of the domain, and for iommufd to finish with other members of the IOMMU
    /// group. Fails with [`EBUSY`] if the member is not idle, or [`ERESTARTNOINTR`] if a signal
    /// ends the wait. Takes the reflck.
    pub(crate) fn open(&self) -> Result<Opening<'_, H>> {
        self.move_claim(Purpose::Open, Claim::Idle, Claim::Opening)?;

        Ok(Opening(self))
    }

    /// Takes an open member back from its user.
    ///
    /// Waits like [`Membership::open`], but signals are ignored, and the reset can only be a hot
    /// reset. Fails with [`EBUSY`] if the member is not open. Takes the reflck.
    pub(crate) fn close(&self) -> Result<Closing<'_, H>> {
        self.move_claim(Purpose::Close, Claim::Open, Claim::Closing)?;

        Ok(Closing(self))
    }

    /// Returns the guard of a member that is closing, after [`Closing::detach`].
    ///
    /// The caller does not ask for a second one. Takes the reflck.
    pub(crate) fn closing(&self) -> Option<Closing<'_, H>> {
        let members = self.seat.members.lock();

        match self.member.state.access(&members).claim {
            Claim::Closing => Some(Closing(self)),
            _ => None,
        }
    }

    /// Reserves an unbound member for `context`.
    ///
    /// Waits for a reset of the domain. Fails with [`EBUSY`] if the member is bound, or
    /// [`ERESTARTNOINTR`] if a signal ends the wait. Takes the reflck.
    pub(crate) fn bind(&self, context: H::Context) -> Result<NewBinding<'_, H>> {
        let rebinding = self.rebind(Purpose::Bind, |binding| match binding {
            Binding::Unbound => Some((context, Binding::Unbound)),
            _ => None,
        })?;

        Ok(NewBinding(rebinding))
    }

    /// Lets iommufd unbind a bound member.
    ///
    /// Waits for a reset of the domain. Fails with [`EBUSY`] if the member is not bound. Takes the
    /// reflck.
    pub(crate) fn unbind(&self) -> Result<Rebinding<'_, H>> {
        self.rebind(Purpose::Unbind, |binding| match binding {
            Binding::Bound(context, _) => Some((context, Binding::Unbound)),
            _ => None,
        })
    }

    /// Lets iommufd attach a bound member.
    ///
    /// Waits for a reset of the domain, and for other members of the IOMMU group that are opening
    /// or closing. Fails with [`EBUSY`] if the member is not bound, or [`ERESTARTNOINTR`] if a
    /// signal ends the wait. Takes the reflck.
    pub(crate) fn attach(&self) -> Result<Rebinding<'_, H>> {
        self.rebind_bound(Purpose::Attach)
    }

    /// Lets iommufd detach a bound member.
    ///
    /// Waits for a reset of the domain, and for its turn after members of the IOMMU group that wait
    /// to open or close. Fails like [`Membership::unbind`].
    pub(crate) fn detach(&self) -> Result<Rebinding<'_, H>> {
        self.rebind_bound(Purpose::Detach)
    }

    /// Puts a bound member in transit that stays bound.
    fn rebind_bound(&self, purpose: Purpose) -> Result<Rebinding<'_, H>> {
        self.rebind(purpose, |binding| match binding {
            Binding::Bound(context, _) => Some((context, binding)),
            _ => None,
        })
    }

    /// Puts the binding of the member in transit. `decide` returns the context that it changes in
    /// and the binding that follows.
    fn rebind(
        &self,
        purpose: Purpose,
        decide: impl FnOnce(Binding<H::Context>) -> Option<(H::Context, Binding<H::Context>)>,
    ) -> Result<Rebinding<'_, H>> {
        let (context, after) = self.begin_transit(purpose, |state| {
            let (context, after) = decide(state.binding).ok_or(EBUSY)?;
            state.binding = Binding::Changing(context);

            Ok((context, after))
        })?;

        Ok(Rebinding {
            membership: self,
            context,
            after,
        })
    }

    /// Resets the domain for a user who owns every member according to `owns`.
    ///
    /// Waits until no member is in transit; no other member can begin a transit meanwhile. Fails
    /// with [`EINVAL`] if the user does not own a member, [`ERESTARTNOINTR`] if a signal ends the
    /// wait, else with the error of [`Hardware::reset_owned`]. Takes the reflck and keeps it during
    /// the reset. The caller keeps this member open.
    pub(crate) fn reset_owned(&self, owns: impl Fn(&H, Binding<H::Context>) -> bool) -> Result {
        let purpose = Purpose::HotReset;
        let wait = Wait::new(self, purpose);
        let mut members = self.seat.members.lock();

        members.waiting += 1;
        let result = loop {
            match Owned::new(&members, &owns) {
                Ok(None) => {
                    if let Err(error) = self.seat.wait(&mut members, purpose) {
                        break Err(error);
                    }
                }
                Ok(Some(owned)) => {
                    wait.end();
                    break self.hardware().reset_owned(&self.seat.scope, &owned);
                }
                Err(error) => break Err(error),
            }
        };
        members.waiting -= 1;
        self.seat.settled.notify_all();

        if result.is_ok() {
            members.reset_done();
        }
        members.publish();

        result
    }

    /// Calls `f` with each member of the domain and its binding.
    ///
    /// Waits until no binding to `context` is changing, so that each has its ID. Fails with
    /// [`ERESTARTNOINTR`] if a signal ends the wait. Takes the reflck and keeps it during the
    /// calls.
    pub(crate) fn for_each_binding(
        &self,
        context: H::Context,
        mut f: impl FnMut(&H, Binding<H::Context>),
    ) -> Result {
        let mut members = self.seat.members.lock();

        while members
            .bindings()
            .any(|(_, binding)| binding == Binding::Changing(context))
        {
            // The info is for one.
            self.seat.wait(&mut members, Purpose::HotReset)?;
        }
        for (hardware, binding) in members.bindings() {
            f(hardware, binding);
        }

        Ok(())
    }

    /// Takes the claim on the member out of transit with `change`. See [`Domain::settle`].
    ///
    /// [`Domain::settle`]: super::domain::Domain::settle
    pub(super) fn settle(&self, change: impl FnOnce(&mut State<H::Context>)) {
        self.seat.settle(&self.member, change);
    }

    /// Takes the binding of the member out of transit. See [`Domain::settle_binding`].
    ///
    /// [`Domain::settle_binding`]: super::domain::Domain::settle_binding
    pub(super) fn settle_binding(&self, binding: Binding<H::Context>) {
        self.seat.settle_binding(&self.member, binding);
    }
}

impl<H: Hardware> Drop for Membership<H> {
    /// Waits for the work on the member, and for a reset of the domain. Takes the reflck, and after
    /// that the registry's lock. The last member to leave waits for a retry that is running.
    fn drop(&mut self) {
        self.finish_cleaning();
        let mut members = self.seat.members.lock();

        // vfio unregisters a device only after its last user has closed and unbound it.
        let state = self.member.state.access(&members);
        kernel::warn_on!(state.is_used() || state.binding != Binding::Unbound);
        let is_dirty = state.is_dirty();
        members
            .list
            .retain(|other| !Arc::ptr_eq(other, &self.member));
        drop(members);

        if is_dirty {
            self.seat.keep_debt(self.hardware().address());
        }
    }
}

/// A wait for the reflck, and for other members to settle, which is traced.
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
        this.notify(Event::Wait(purpose));

        this
    }

    /// Ends the wait. Called with the reflck held.
    fn end(self) {
        self.notify(Event::Claim(self.purpose, self.start.elapsed()));
    }

    fn notify(&self, event: Event<'_, H>) {
        let Membership { member, seat, .. } = self.membership;

        member.hardware.notify(&seat.scope, event);
    }
}
