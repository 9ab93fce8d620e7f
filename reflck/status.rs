// SPDX-License-Identifier: GPL-2.0

//! The status of a function, as user space sees it. Plain data.

use super::{
    member::{
        Binding,
        Claim,
        Condition,
        Member,
        Members,
        Settled, //
    },
    Address,
    Hardware,
    Membership,
    ResetScope, //
};
use kernel::prelude::*;

/// The status of a function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// Nothing proves that it was reset since it was last in use.
    Unknown,
    /// It was in use and has not been reset since.
    Dirty,
    /// It has not been in use since its reset.
    Clean,
    /// The driver resets it.
    Cleaning,
    /// User space has it.
    InUse,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Dirty => "dirty",
            Self::Clean => "clean",
            Self::Cleaning => "cleaning",
            Self::InUse => "in-use",
        }
    }
}

impl From<Condition> for Status {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Unknown => Self::Unknown,
            Condition::Dirty => Self::Dirty,
            Condition::Clean => Self::Clean,
        }
    }
}

/// The reset that is due after the last use of a function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owed {
    Nothing,
    /// That of the function alone.
    Function,
    /// That of its slot or bus.
    Domain,
}

impl<H: Hardware> Member<H> {
    /// Returns the condition. An idle member is only clean as long as the hardware proves it.
    fn condition(&self, members: &Members<H>) -> Condition {
        match self.state.access(members).condition {
            Condition::Clean if !self.hardware.is_untouched(0) => Condition::Unknown,
            condition => condition,
        }
    }

    pub(super) fn condition_name(&self, members: &Members<H>) -> &'static str {
        Status::from(self.condition(members)).name()
    }

    fn status(&self, members: &Members<H>) -> Status {
        let state = self.state.access(members);

        match (state.claim, state.binding) {
            (Claim::Cleaning(..), _) => Status::Cleaning,
            (Claim::Idle, Binding::Unbound) => self.condition(members).into(),
            _ => Status::InUse,
        }
    }
}

impl<H: Hardware> Members<H> {
    /// Publishes the status of every member, after that of some may have changed.
    pub(super) fn publish(&self) {
        let is_settled = self.failed == 0 && self.first_used().is_none();

        for member in &self.list {
            let status = member.status(self);
            member.hardware.publish(status, is_settled);
        }
    }
}

impl<H: Hardware> Membership<H> {
    pub(crate) fn scope(&self) -> &ResetScope {
        &self.seat.scope
    }

    /// Publishes the status, after the hardware has learned more of it. Takes the reflck.
    pub(crate) fn publish(&self) {
        self.seat.members.lock().publish();
    }

    /// Returns the status. The hardware may know that the function is gone. Takes the reflck.
    pub(crate) fn status(&self) -> Status {
        self.member.status(&self.seat.members.lock())
    }

    /// Returns the reset that is still due. Takes the reflck.
    pub(crate) fn owed(&self) -> Owed {
        self.owed_locked(&self.seat.members.lock())
    }

    fn owed_locked(&self, members: &Members<H>) -> Owed {
        if !self.seat.scope.is_private() && self.member.needs_domain(members) {
            return Owed::Domain;
        }

        match self.member.state.access(members).is_dirty() {
            true => Owed::Function,
            false => Owed::Nothing,
        }
    }

    /// Calls `f` with the members in use, and with all if none of them is in transit.
    ///
    /// Takes the reflck and keeps it during the call.
    pub(crate) fn survey<R>(
        &self,
        f: impl FnOnce(&mut dyn Iterator<Item = Address>, Option<&Settled<'_, H>>) -> R,
    ) -> R {
        let members = self.seat.members.lock();
        let mut used = members
            .list
            .iter()
            .filter(|member| member.state.access(&members).is_used())
            .map(|member| member.hardware.address());

        f(&mut used, Settled::new(&members).as_ref())
    }

    /// Cleans an idle function now, for root: resets its domain, or lets work reset it alone.
    ///
    /// `is_resettable` says whether work can reset it. Fails with [`EBUSY`] if the function is in
    /// use or being reset, or if another one in use prevents its reset or that of the domain,
    /// [`ENOTTY`] if there is neither reset, and [`EIO`] if that of the domain fails. Takes the
    /// reflck, and keeps it during a reset of the domain.
    pub(crate) fn reset_now(&self, is_resettable: bool) -> Result {
        let mut members = self.seat.members.lock();

        let is_idle = !matches!(
            self.member.status(&members),
            Status::Cleaning | Status::InUse
        );
        if !is_idle || members.waiting > 0 {
            return Err(EBUSY);
        }
        if is_resettable && self.owed_locked(&members) != Owed::Domain {
            return match self.reset_later_locked(&mut members) {
                true => Ok(()),
                false => Err(EBUSY),
            };
        }
        if self.seat.scope.is_private() {
            return Err(ENOTTY);
        }
        if members.first_used().is_some() {
            return Err(EBUSY);
        }
        // The attempts of a retry that is due count from here on.
        members.failed = 0;
        self.seat.attempt_reset(&mut members, self.hardware());
        members.publish();

        match self.member.state.access(&members).condition {
            Condition::Clean => Ok(()),
            Condition::Unknown | Condition::Dirty => Err(EIO),
        }
    }
}
