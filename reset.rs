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
        Address,
        Affected,
        BoundTo,
        Context,
        ContextId,
        Dependent,
        Driver,
        Fence,
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
        Err(EAGAIN) => dev_info!(
            function.dev(),
            "function reset skipped: its lock is held elsewhere, it stays dirty\n"
        ),
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

    /// Resets the slot or bus if that affects members of the domain only.
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
            dev_info!(
                self.dev(),
                "{kind} reset of {scope} skipped: it has no such reset\n"
            );
            return Err(ENOTTY);
        }
        match find_stranger(self, unused, |other| (other.address(), other.bound_to())) {
            None => (),
            Some((address, bound_to @ BoundTo::Changing)) => {
                dev_info!(
                    self.dev(),
                    "{kind} reset of {scope} skipped: {address} {bound_to}, {next}\n"
                );
                return Err(EAGAIN);
            }
            Some((address, bound_to)) => {
                dev_info!(
                    self.dev(),
                    "{kind} reset of {scope} skipped: {address} {bound_to}\n"
                );
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
    /// only.
    ///
    /// Functions that their user has left in a low power state, or that are unused and in D3hot,
    /// are in D0 meanwhile. Undone in reverse, also if there is an error: [`EINVAL`] if the reset
    /// is not there or would affect another function, [`EBUSY`] if a function is being accessed.
    fn hot_reset(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        // Whoever the other one belongs to shall not find its device lock held because of this.
        let stranger = find_stranger(self, owned, |other| other.address());
        if let Some(address) = &stranger {
            dev_dbg!(
                self.dev(),
                "hot reset of {scope} refused: {address} is not bound to this driver\n"
            );
        }
        if stranger.is_some() || !self.can_reset_affected() {
            return Err(EINVAL);
        }

        self.traced_reset(scope, true, owned.len(), || {
            let _resumed = Resumed::new(owned.iter())?;
            let mut fences = Fences(KVec::with_capacity(owned.len(), GFP_KERNEL)?);
            for function in owned.iter() {
                fences.0.push(function.fence()?, GFP_KERNEL)?;
            }
            for fence in &fences.0 {
                fence.set_d0();
            }

            self.reset_affected()
        })
    }

    fn shares_iommu_group(&self, other: &Self) -> bool {
        Function::shares_iommu_group(self, other)
    }

    fn reset_deferred(&self, scope: &ResetScope, user: Address) {
        dev_info!(
            self.dev(),
            "{} reset of {scope} skipped: {user} is in use\n",
            scope.kind()
        );
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

/// Fences that are taken away in reverse.
struct Fences<'a>(KVec<Fence<'a>>);

impl Drop for Fences<'_> {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// Returns what `look` finds of a function that a slot or bus reset would affect, but that is not a
/// member of the domain; of the first one.
fn find_stranger<R>(
    function: &Function,
    members: &Still<'_, Function>,
    look: impl Fn(&Affected<'_>) -> R,
) -> Option<R> {
    let mut found = None;

    function.for_each_affected(|affected| {
        if members.contains(affected.address()) {
            return ControlFlow::Continue(());
        }
        found = Some(look(affected));
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
