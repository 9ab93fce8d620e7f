// SPDX-License-Identifier: GPL-2.0

//! The reflck: one lock per reset domain.
//!
//! A reset domain is the set of functions that one slot or bus reset affects. Its functions must
//! agree on one thing only: which of them are in use when such a reset runs. So the reflck guards a
//! claim for each member, and whether the member is dirty, that is, still owed a reset. It is not
//! held while a single function is enabled, reset or quiesced.
//!
//! - [`Registry::join`] adds a function to its domain, and makes the domain if there is none. The
//!   member leaves when its [`Membership`] is dropped. The last member frees the domain.
//! - [`Membership::open`] and [`Membership::close`] put a member in transit. The guards that they
//!   return record the result.
//! - [`Membership::bind`], [`Membership::unbind`] and [`Membership::attach`] do the same for
//!   iommufd. No member is attached while another one of its IOMMU group is opening or closing.
//! - [`Membership::reset_owned`] resets the domain for a user who owns every member, once none is
//!   in transit.
//! - A member that is closed, or fails to open, triggers a reset if the whole domain is unused and
//!   any member is dirty. The reset is over before any member can be claimed again. A member that
//!   is bound but not open is unused, so that the reset precedes the unbind.
//! - A reset that fails for a transient reason is retried later, unless a member is claimed first.
//!
//! The reflck makes no PCI calls. The driver implements [`Hardware`] in `reset.rs`.
//!
//! # Locking
//!
//! The registry's lock is taken when a member joins or leaves, in probe and remove, and to list the
//! domains. It is never held together with a reflck, so the reset of one domain does not block
//! another.
//!
//! Both locks nest inside vfio's group lock and the `dev_set->lock` of the device. Inside a reflck
//! nest `pci_bus_sem`; runtime PM, which takes the `memory_lock` of a function that it resumes; and
//! the device locks and `memory_lock`s of a reset, which are only tried.
//!
//! The retry takes the reflck. The last member to leave waits for it with neither lock held. No
//! function in here may be called in atomic context.

mod claim;
mod domain;
mod event;
mod failure;
#[cfg(any(CONFIG_VFIO_PCI_RS_KUNIT_TEST, test))]
pub(crate) mod fake;
mod member;
mod membership;
mod registry;
mod scope;
#[cfg(any(CONFIG_VFIO_PCI_RS_KUNIT_TEST, all(test, not(loom))))]
mod tests;

use kernel::prelude::*;

pub(crate) use self::{
    event::{
        Event,
        Purpose, //
    },
    failure::{
        Obstacle,
        Report,
        ResetFailure,
        Stranger, //
    },
    member::{
        Binding,
        Owned,
        Settled,
        Unused, //
    },
    membership::Membership,
    registry::Registry,
    scope::{
        Address,
        ResetScope, //
    }, //
};

/// The hardware of one function, as the reflck sees it.
pub(crate) trait Hardware: Send + Sync + Sized + 'static {
    /// Identifies an iommufd context.
    type Context: Copy + Eq + Send + Sync;

    /// The reason why a reset failed.
    type Failure: Failure;

    /// Returns the address of the function.
    fn address(&self) -> Address;

    /// Attempts the slot or bus reset of `scope`. No member is in use.
    ///
    /// Called with the reflck held: on the member that has just become unused, or on a dirty member
    /// for a retry. On success every member is reset and on its way back to D3hot. On failure all
    /// members are as dirty as before.
    fn reset_unused(
        &self,
        scope: &ResetScope,
        unused: &Unused<'_, Self>,
    ) -> Result<(), Self::Failure>;

    /// Attempts the same reset with members in use. The caller owns all of them, and none is in
    /// transit.
    ///
    /// Called on an open member with the reflck held. Blocks the user's access to the open members
    /// meanwhile.
    fn reset_owned(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result;

    /// Returns whether both functions are in the same IOMMU group. Called with the reflck held.
    fn shares_iommu_group(&self, other: &Self) -> bool;

    /// Hook for logs and traces.
    fn notify(&self, scope: &ResetScope, event: Event<'_, Self>);
}

/// The reason why a reset failed.
pub(crate) trait Failure {
    /// Returns whether a later attempt may succeed.
    fn is_transient(&self) -> bool;
}
