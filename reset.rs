// SPDX-License-Identifier: GPL-2.0

//! The resets: of one function that is released or unbound, and of a whole slot or bus, at the last
//! release or as a hot reset that the user asks for.
//!
//! Decides nothing about who may reset when: `reflck.rs` does, and calls [`Hardware::reset`] and
//! [`Hardware::hot_reset`] here with the reflck held and the proof that nothing in the domain is in
//! use, or that all of it is the caller's.

use crate::{
    reflck::{
        Binding,
        Hardware,
        Membership,
        Owned,
        Purpose,
        Still,
        TraceEvent,
        Unused, //
    },
    vfio::{
        may_log,
        Address,
        BoundTo,
        Context,
        ContextId,
        Dependent,
        Driver,
        Fences,
        Function,
        Owner,
        Quiesced,
        ResetScope,
        Resumed, //
    },
};
use core::ops::ControlFlow;
use kernel::{
    device,
    fmt,
    pci,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Resets a function at its release, if that is still owed and can be done. Returns whether it is
/// dirty after all.
///
/// vfio-pci-core resets the function itself if it can take the lock of the bridge above; it only
/// tries to, and loses against siblings that are being reset at the same time. That lock protects
/// the bridge from a reset method that goes through it. So a function whose method does not is
/// reset under its own device lock alone, just as when it is opened. The device lock in turn is
/// only tried, because whoever unbinds the device holds it and waits for this release.
///
/// A function that does not answer any more has failed its reset, or is gone: trying again would
/// only cost another minute's wait.
///
/// A function that is alone in its slot or on its bus has no siblings to lose against, and the
/// reset of the slot or bus, if there is one, follows.
pub(crate) fn reset_function<T: Driver>(function: &Function, quiesced: &Quiesced<'_, T>) -> bool {
    if !quiesced.needs_reset() {
        return false;
    }
    if !quiesced.reset_works()
        || !function.is_present()
        || function.reset_uses_bridge()
        || (is_alone(function) && function.can_reset_affected())
    {
        return true;
    }

    match function.try_reset() {
        Ok(()) => return false,
        // Nothing is wrong with the function.
        Err(EAGAIN) => {
            if may_log() {
                dev_info!(
                    function.dev(),
                    "function reset skipped: its lock is held elsewhere, it stays dirty\n"
                );
            }
        }
        Err(error) => dev_warn!(
            function.dev(),
            "function reset failed with error {}, it stays dirty\n",
            error.to_errno()
        ),
    }

    true
}

/// Resets a function that is unbound while it is still owed a reset: whoever gets it next shall not
/// find what its last user left.
///
/// That is so if it was open when it was to be unbound: then the device lock was not to be had at
/// the release. Now it is held. A function that only a reset of its slot or bus can clean is given
/// back as it is, and so is one that is gone: to wait for it would only hold up its removal.
pub(crate) fn reset_unbound(pdev: &pci::Device<device::Core<'_>>, function: &Function) {
    let result = if !function.is_present() {
        Err(ENODEV)
    } else if function.reset_uses_bridge() {
        Err(ENOTTY)
    } else {
        Function::reset_locked(pdev)
    };

    match result {
        Ok(()) => dev_info!(pdev, "function reset done before it is unbound\n"),
        Err(error) => dev_warn!(
            pdev,
            "unbound without the reset that it still needs (error {})\n",
            error.to_errno()
        ),
    }
}

/// Returns whether a slot or bus reset would reset this function only.
fn is_alone(function: &Function) -> bool {
    if matches!(function.reset_scope(), ResetScope::Private(_)) {
        return false;
    }

    function.count_affected() == 1
}

/// Finds out what the user whose functions are bound to `context` has of each of `dependents`.
pub(crate) fn hot_reset_info(
    membership: &Membership<Function>,
    context: &Context<'_>,
    dependents: &mut [Dependent],
) {
    membership.for_each_binding(context.id(), |function, binding| {
        let address = function.address();
        let devid = match binding {
            Binding::Bound(bound, id) if bound == context.id() => id,
            Binding::Unbound if context.has_group_of(function) => Dependent::OWNED,
            _ => Dependent::NOT_OWNED,
        };

        for dependent in &mut *dependents {
            if dependent.address() == address {
                dependent.set_devid(devid);
            }
        }
    });
}

/// Resets the slot or bus for the user who has all of it, according to `owner`.
pub(crate) fn hot_reset(membership: &Membership<Function>, owner: &Owner<'_>) -> Result {
    membership.hot_reset(|function, binding| match owner {
        Owner::Groups(groups) => groups.contain(function),
        Owner::Context(context) => match binding {
            Binding::Bound(bound, _) | Binding::Changing(bound) => bound == context.id(),
            Binding::Unbound => context.has_group_of(function),
        },
    })
}

impl Hardware for Function {
    type Context = ContextId;

    fn address(&self) -> Address {
        Function::address(self)
    }

    /// Resets the slot or bus if that affects members of the domain only, and none that has virtual
    /// functions.
    ///
    /// One that is bound to another driver, or to none, is not ours to reset, and nothing would
    /// keep it from being used meanwhile. Members can not be unbound during the reset, as they
    /// would have to leave the domain first, and that takes the reflck.
    ///
    /// Unused functions are in D3hot: they are brought to D0 for the reset, and when it is over,
    /// runtime PM takes them back.
    fn reset(
        &self,
        scope: &ResetScope,
        unused: &Unused<'_, Self>,
        retry_in: Option<u32>,
    ) -> Result {
        let kind = scope.kind();
        let next = Next(retry_in);

        if !self.can_reset_affected() {
            if may_log() {
                dev_info!(
                    self.dev(),
                    "{kind} reset of {scope} skipped: it has no such reset\n"
                );
            }
            return Err(ENOTTY);
        }
        match find_obstacle(self, unused) {
            None => (),
            Some((address, obstacle @ Obstacle::Stranger(BoundTo::Changing))) => {
                if may_log() {
                    dev_info!(
                        self.dev(),
                        "{kind} reset of {scope} skipped: {address} {obstacle}, {next}\n"
                    );
                }
                return Err(EAGAIN);
            }
            Some((address, obstacle)) => {
                if may_log() {
                    dev_info!(
                        self.dev(),
                        "{kind} reset of {scope} skipped: {address} {obstacle}\n"
                    );
                }
                return Err(EBUSY);
            }
        }

        let result = self.traced_reset(scope, false, unused.len(), || reset_all(self, unused));
        match &result {
            Ok(ms) => dev_info!(
                self.dev(),
                "{kind} reset of {scope} done: {} functions in {ms} ms\n",
                unused.len()
            ),
            // A lock is held elsewhere.
            Err(EAGAIN) => dev_warn!(
                self.dev(),
                "{kind} reset of {scope} failed with error {}, {} functions stay dirty, {next}\n",
                EAGAIN.to_errno(),
                unused.dirty()
            ),
            Err(error) => dev_warn!(
                self.dev(),
                "{kind} reset of {scope} failed with error {}, {} functions stay dirty\n",
                error.to_errno(),
                unused.dirty()
            ),
        }

        result.map(|_| ())
    }

    /// Resets the slot or bus, with users kept away from it, if that affects members of the domain
    /// only, and none that has virtual functions.
    ///
    /// Functions that their user has left in a low power state, or that are unused and in D3hot,
    /// are in D0 meanwhile. Undone in reverse, also if there is an error: [`EINVAL`] if the reset
    /// is not there or would affect another function, [`EBUSY`] if a function is being accessed,
    /// [`EAGAIN`] if a device lock is held elsewhere, [`ENOMEM`], and what waking a function gives.
    fn hot_reset(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        let obstacle = find_obstacle(self, owned);
        if let Some((address, obstacle)) = &obstacle {
            dev_dbg!(
                self.dev(),
                "hot reset of {scope} refused: {address} {obstacle}\n"
            );
        }
        if obstacle.is_some() || !self.can_reset_affected() {
            return Err(EINVAL);
        }

        self.traced_reset(scope, true, owned.len(), || {
            let _resumed = Resumed::new(owned.iter())?;
            let fences = Fences::new(owned)?;
            fences.set_d0();

            self.reset_affected()
        })
    }

    fn shares_iommu_group(&self, other: &Self) -> bool {
        Function::shares_iommu_group(self, other)
    }

    fn reset_deferred(&self, scope: &ResetScope, user: Address) {
        if may_log() {
            dev_info!(
                self.dev(),
                "{} reset of {scope} skipped: {user} is in use\n",
                scope.kind()
            );
        }
    }

    fn trace(&self, scope: &ResetScope, event: TraceEvent) {
        match event {
            TraceEvent::Wait(purpose) => self.trace_wait(scope, purpose_name(purpose)),
            TraceEvent::Claim(purpose, waited) => {
                self.trace_claim(scope, purpose_name(purpose), waited)
            }
            TraceEvent::Settle { open, bound, dirty } => {
                self.trace_settle(scope, open, bound, dirty)
            }
        }
    }
}

/// What tracepoints call a purpose.
fn purpose_name(purpose: Purpose) -> &'static CStr {
    match purpose {
        Purpose::Open => c"open",
        Purpose::Release => c"release",
        Purpose::Bind => c"bind",
        Purpose::Unbind => c"unbind",
        Purpose::Attach => c"attach",
        Purpose::HotReset => c"hot-reset",
    }
}

/// When a reset is tried again, for the log.
struct Next(Option<u32>);

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ms) => f.write_fmt(fmt!("next attempt in {ms} ms")),
            None => f.write_str("given up until the next release"),
        }
    }
}

/// Why a function that a slot or bus reset would affect does not allow it.
enum Obstacle {
    /// It is not a member of the domain, but bound to this.
    Stranger(BoundTo),
    /// It is a member, but has virtual functions, which are none.
    VirtualFunctions,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger(bound_to) => bound_to.fmt(f),
            Self::VirtualFunctions => f.write_str("has virtual functions"),
        }
    }
}

/// Returns the first function that does not allow a slot or bus reset of the domain, and why.
fn find_obstacle(
    function: &Function,
    members: &Still<'_, Function>,
) -> Option<(Address, Obstacle)> {
    let mut found = None;

    function.for_each_affected(|affected| {
        let address = affected.address();
        let obstacle = if !members.contains(address) {
            Obstacle::Stranger(affected.bound_to())
        } else if affected.has_virtual_functions() {
            Obstacle::VirtualFunctions
        } else {
            return ControlFlow::Continue(());
        };
        found = Some((address, obstacle));

        ControlFlow::Break(())
    });

    found
}

/// Resets the slot or bus of `function`, with all its functions in D0 meanwhile. Returns the
/// milliseconds that it took.
fn reset_all(function: &Function, unused: &Unused<'_, Function>) -> Result<i64> {
    let _resumed = Resumed::new(unused.iter())?;

    let start = Instant::<Monotonic>::now();
    function.reset_affected()?;

    Ok(start.elapsed().as_millis())
}
