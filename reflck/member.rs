// SPDX-License-Identifier: GPL-2.0

//! Members of a domain, their state, and views of them that a reset relies on.

use super::{
    Address,
    Hardware,
    Purpose, //
};
use core::ops::Deref;
use kernel::{
    fmt,
    prelude::*,
    sync::{
        Arc,
        LockedBy,
        Mutex, //
    }, //
};

/// The use of a function by user space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Claim {
    /// Unused. The function can be claimed, and can be reset together with its siblings.
    Idle,
    /// Being enabled and reset, outside the reflck.
    Opening,
    /// In the hands of a user.
    Open,
    /// Being quiesced and reset, outside the reflck.
    Closing,
    /// In the hands of the driver's work, outside the reflck, after so many attempts that failed.
    Cleaning(Chore, usize),
}

/// The work on a member that is cleaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Chore {
    /// Reset an idle function: one that has just been bound, or was within the reach of others.
    Reset,
    /// Reset a function that was closed, and disable it.
    FinishClose,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Cleaning(..) => "cleaning",
        })
    }
}

/// The account of the state that its users have left in a function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    /// It is in use, or nothing has reset it since it was bound.
    Unknown,
    /// It was used and has not been reset since, the current use aside.
    Dirty,
    /// It has not been used since a reset. [`Hardware::is_untouched`] knows about others.
    Clean,
}

/// The iommufd binding of a function.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Binding<C> {
    Unbound,
    /// iommufd binds, unbinds or attaches the function in this context, outside the reflck.
    Changing(C),
    /// Bound to this context, with this ID.
    Bound(C, u32),
}

impl<C> Binding<C> {
    /// Returns the context, unless the function is unbound.
    pub(crate) fn context(self) -> Option<C> {
        match self {
            Self::Unbound => None,
            Self::Changing(context) | Self::Bound(context, _) => Some(context),
        }
    }
}

/// The place of a transition in the order of arrival, and its purpose.
pub(super) type Turn = (u64, Purpose);

/// The state of a member, guarded by the reflck.
pub(super) struct State<C> {
    pub(super) claim: Claim,
    pub(super) binding: Binding<C>,
    pub(super) condition: Condition,
    /// It may have been used since the last reset of the domain.
    pub(super) was_used: bool,
    /// A transition of it waits.
    pub(super) turn: Option<Turn>,
}

impl<C: Copy + Eq> State<C> {
    /// Returns whether a slot or bus reset must not run now.
    ///
    /// A function that is bound and idle has no user yet, or none any more.
    pub(super) fn is_used(&self) -> bool {
        self.claim != Claim::Idle || self.is_rebinding()
    }

    /// Returns whether no user has the function, and no work.
    pub(super) fn is_idle(&self) -> bool {
        self.claim == Claim::Idle && self.binding == Binding::Unbound
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.condition == Condition::Dirty
    }

    pub(super) fn is_cleaning(&self) -> bool {
        matches!(self.claim, Claim::Cleaning(..))
    }

    /// Returns whether the function is being enabled, quiesced or reset.
    pub(super) fn is_opening_or_closing(&self) -> bool {
        matches!(self.claim, Claim::Opening | Claim::Closing) || self.is_cleaning()
    }

    pub(super) fn is_rebinding(&self) -> bool {
        matches!(self.binding, Binding::Changing(_))
    }

    fn is_in_transit(&self) -> bool {
        self.is_opening_or_closing() || self.is_rebinding()
    }
}

/// A function in a reset domain.
pub(super) struct Member<H: Hardware> {
    pub(super) hardware: H,
    pub(super) state: LockedBy<State<H::Context>, Members<H>>,
}

impl<H: Hardware> Member<H> {
    /// Makes an idle member of the domain of `members`. It is not in the list yet.
    pub(super) fn new(
        members: &Mutex<Members<H>>,
        hardware: H,
        is_dirty: bool,
    ) -> Result<Arc<Self>> {
        let state = State {
            claim: Claim::Idle,
            binding: Binding::Unbound,
            condition: match is_dirty {
                true => Condition::Dirty,
                false => Condition::Unknown,
            },
            was_used: true,
            turn: None,
        };

        Ok(Arc::new(
            Self {
                hardware,
                state: LockedBy::new(members, state),
            },
            GFP_KERNEL,
        )?)
    }

    /// Returns whether work may reset the function now.
    pub(super) fn may_be_reset(&self, members: &Members<H>) -> bool {
        self.state.access(members).is_idle()
            && members.waiting == 0
            && !(members.serialized && members.is_in_transit())
    }

    /// Returns whether a reset of the domain is due for the function, as soon as that is unused.
    pub(super) fn is_due(&self, members: &Members<H>) -> bool {
        self.state.access(members).is_dirty() || self.wants_domain(members)
    }

    /// Returns whether only a reset of the domain makes the function as clean as root wants it.
    pub(super) fn needs_domain(&self, members: &Members<H>) -> bool {
        let is_dirty = self.state.access(members).is_dirty();

        is_dirty && self.hardware.needs_domain() || self.wants_domain(members)
    }

    /// Returns whether root wants a reset of the domain, whatever else the function was reset by.
    fn wants_domain(&self, members: &Members<H>) -> bool {
        self.state.access(members).was_used && self.hardware.wants_domain()
    }
}

/// The state of a domain, guarded by the reflck.
pub(super) struct Members<H: Hardware> {
    pub(super) list: KVec<Arc<Member<H>>>,
    /// Slot or bus resets that succeeded.
    pub(super) resets: u64,
    /// Attempts that failed since, if a retry is due; else 0.
    pub(super) failed: u32,
    /// A member in use deferred a reset, or a claim cancelled its retry, and none was attempted
    /// since.
    pub(super) owed: bool,
    /// Hot resets that wait for members in transit.
    pub(super) waiting: usize,
    /// Transitions that were asked for.
    pub(super) turns: u64,
    /// Members open and close one at a time.
    pub(super) serialized: bool,
}

impl<H: Hardware> Members<H> {
    pub(super) fn new() -> Self {
        Self {
            list: KVec::new(),
            resets: 0,
            failed: 0,
            owed: false,
            waiting: 0,
            turns: 0,
            serialized: false,
        }
    }

    /// Returns a member that is in use or in transit.
    pub(super) fn first_used(&self) -> Option<&Member<H>> {
        self.list
            .iter()
            .find(|member| member.state.access(self).is_used())
            .map(|member| &**member)
    }

    /// Returns a member that a reset is due for.
    pub(super) fn first_due(&self) -> Option<Arc<Member<H>>> {
        self.list.iter().find(|member| member.is_due(self)).cloned()
    }

    pub(super) fn count_dirty(&self) -> usize {
        self.list
            .iter()
            .filter(|member| member.state.access(self).is_dirty())
            .count()
    }

    pub(super) fn bindings(&self) -> impl Iterator<Item = (&H, Binding<H::Context>)> {
        self.list
            .iter()
            .map(|member| (&member.hardware, member.state.access(self).binding))
    }

    pub(super) fn is_in_transit(&self) -> bool {
        self.list
            .iter()
            .any(|member| member.state.access(self).is_in_transit())
    }

    /// Returns whether a member in transit excludes that `member` goes in transit for `purpose`.
    ///
    /// A member that is cleaning has to be idle again before its next user gets it. So has every
    /// one before a member is opened that only a reset of the domain can clean, if no user prevents
    /// that.
    ///
    /// The IOMMU core refuses to attach a group while it resets a function in it that has ATS. So
    /// no member is enabled or quiesced while iommufd has another one of its group, and none is
    /// attached while another one is enabled or quiesced. Binding the first one of a group attaches
    /// it as well, while a member that is cleaning may still be reset. The IOMMU core allows to
    /// detach a group at any time.
    pub(super) fn excludes(&self, member: &Member<H>, purpose: Purpose) -> bool {
        let is_free = |other: &Arc<Member<H>>| {
            let state = other.state.access(self);
            !state.is_used() || state.is_cleaning()
        };
        let needs_domain =
            purpose == Purpose::Open && member.needs_domain(self) && self.list.iter().all(is_free);

        self.list.iter().any(|other| {
            let state = other.state.access(self);
            if core::ptr::eq(&**other, member) {
                return state.is_cleaning() && purpose.needs_idle();
            }
            let shares_group = || other.hardware.shares_iommu_group(&member.hardware);

            match purpose {
                Purpose::Open | Purpose::Close => {
                    (needs_domain && state.is_cleaning())
                        || (self.serialized && state.is_opening_or_closing())
                        || (state.is_rebinding() && shares_group())
                }
                Purpose::Attach => state.is_opening_or_closing() && shares_group(),
                Purpose::Bind => state.is_cleaning() && shares_group(),
                Purpose::Clean | Purpose::Unbind | Purpose::Detach | Purpose::HotReset => false,
            }
        })
    }

    /// Records a successful reset of all members.
    pub(super) fn reset_done(&mut self) {
        self.resets += 1;
        self.owed = false;

        // A state can only be changed while nothing else of `self` is borrowed.
        let list = core::mem::take(&mut self.list);
        for member in &list {
            let state = member.state.access_mut(self);
            state.condition = match state.claim {
                Claim::Idle => Condition::Clean,
                _ => Condition::Unknown,
            };
            state.was_used = state.claim != Claim::Idle;
        }
        self.list = list;
    }
}

/// A domain in which no member is in transit.
///
/// The borrow proves that the reflck is held: no member can change, leave or be claimed.
pub(crate) struct Settled<'a, H: Hardware>(&'a Members<H>);

impl<'a, H: Hardware> Settled<'a, H> {
    /// Returns the proof, or `None` while a member is in transit.
    pub(super) fn new(members: &'a Members<H>) -> Option<Self> {
        (!members.is_in_transit()).then_some(Self(members))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.list.len()
    }

    pub(crate) fn count_dirty(&self) -> usize {
        self.0.count_dirty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a H> + Clone {
        self.0.list.iter().map(|member| &member.hardware)
    }

    pub(crate) fn contains(&self, address: Address) -> bool {
        self.iter().any(|hardware| hardware.address() == address)
    }
}

/// A domain in which no member is in use.
pub(crate) struct Unused<'a, H: Hardware>(Settled<'a, H>);

impl<'a, H: Hardware> Unused<'a, H> {
    /// Returns the proof, or a member that is in use.
    pub(super) fn new(members: &'a Members<H>) -> Result<Self, &'a Member<H>> {
        match members.first_used() {
            None => Ok(Self(Settled(members))),
            Some(user) => Err(user),
        }
    }
}

impl<'a, H: Hardware> Deref for Unused<'a, H> {
    type Target = Settled<'a, H>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A domain in which one user owns every member, and no member is in transit.
pub(crate) struct Owned<'a, H: Hardware>(Settled<'a, H>);

impl<'a, H: Hardware> Owned<'a, H> {
    /// Returns the proof, or `None` while a member is in transit. Fails with [`EINVAL`] if `owns`
    /// does not hold for every member.
    pub(super) fn new(
        members: &'a Members<H>,
        owns: impl Fn(&H, Binding<H::Context>) -> bool,
    ) -> Result<Option<Self>> {
        // Ownership first: members of another user may stay in transit.
        if !members
            .bindings()
            .all(|(hardware, binding)| owns(hardware, binding))
        {
            return Err(EINVAL);
        }

        Ok(match members.is_in_transit() {
            true => None,
            false => Some(Self(Settled(members))),
        })
    }
}

impl<'a, H: Hardware> Deref for Owned<'a, H> {
    type Target = Settled<'a, H>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
