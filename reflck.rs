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
//! - Transitions that exclude each other begin in the order of arrival.
//! - [`Membership::reset_owned`] resets the domain for a user who owns every member, once none is
//!   in transit.
//! - A dirty member that leaves stays in debt: if its function joins again, it is dirty.
//! - A member that is closed, or fails to open, triggers a reset if the whole domain is unused and
//!   any member is dirty. The reset is over before any member can be claimed again. A member that
//!   is bound but not open is unused, so that the reset precedes the unbind.
//! - A reset that fails for a transient reason is retried later, unless a member is claimed first.
//! - Work of a member resets it after it was closed, and after it was bound. The member is in
//!   transit until then, and its next user waits.
//! - A member that was reset after its last user is clean, unless it was touched since. An open
//!   that finds it so needs no reset. If others could reach it during that reset, work resets it
//!   again once they cannot, if that does not take too long.
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
//! The retry and the work of a member take the reflck. A member that leaves waits for its work, and
//! the last one for the retry, with neither lock held. No
//! function in here may be called in atomic context.

mod claim;
#[cfg(any(CONFIG_VFIO_PCI_RS_KUNIT_TEST, all(test, not(loom))))]
mod clean_tests;
mod cleaner;
mod cleaning;
mod domain;
mod event;
mod failure;
#[cfg(any(CONFIG_VFIO_PCI_RS_KUNIT_TEST, test))]
pub(crate) mod fake;
mod member;
mod membership;
mod registry;
mod scope;
mod status;
#[cfg(any(CONFIG_VFIO_PCI_RS_KUNIT_TEST, all(test, not(loom))))]
mod tests;
mod turn;

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
    },
    status::{
        Owed,
        Status, //
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

    /// Resets an idle member alone, without the reflck. It is asleep after that.
    ///
    /// Fails with [`EAGAIN`] if a lock is held elsewhere.
    fn reset_alone(&self) -> Result;

    /// Finishes a close, without the reflck: resets the function alone, and disables it.
    ///
    /// Returns whether it is still owed a reset. If not, it is asleep. Without `force`, fails with
    /// [`EAGAIN`] if a lock is held elsewhere.
    fn finish_close(&self, force: bool) -> Result<bool>;

    /// Returns whether no reset of the function alone has worked. Called with the reflck held.
    fn needs_domain(&self) -> bool;

    /// Returns whether root wants a reset of the domain, even if the function was reset alone.
    fn wants_domain(&self) -> bool;

    /// Returns whether the function was out of reach since it was last reset.
    ///
    /// It has been woken `wakes` times since then. Called with the reflck held.
    fn is_untouched(&self, wakes: u32) -> bool;

    /// Returns whether others could reach the idle function during its last reset, and work may
    /// reset it again. Called with the reflck held.
    fn was_exposed(&self) -> bool;

    /// Returns whether others can reach the idle function now. Called with the reflck held.
    fn is_exposed(&self) -> bool;

    /// Returns whether both functions are in the same IOMMU group. Called with the reflck held.
    fn shares_iommu_group(&self, other: &Self) -> bool;

    /// Hook for user space: the status may have changed. Called with the reflck held.
    ///
    /// If `is_settled` is set, no member is in use and no retry is due, so that nothing but a user
    /// or root changes the status again.
    fn publish(&self, status: Status, is_settled: bool);

    /// Hook for logs and traces.
    fn notify(&self, scope: &ResetScope, event: Event<'_, Self>);
}

/// The reason why a reset failed.
pub(crate) trait Failure {
    /// Returns whether a later attempt may succeed.
    fn is_transient(&self) -> bool;
}
