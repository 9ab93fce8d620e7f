// SPDX-License-Identifier: GPL-2.0

//! Resets: of one function that is unbound, and of a whole slot or bus, at the last close or as a
//! hot reset that the user asks for. vfio-pci-core resets a function that is opened or closed.
//!
//! `reflck.rs` decides when a domain may be reset. It calls [`Hardware::reset_unused`] and
//! [`Hardware::reset_owned`] here with the reflck held. The [`Unused`] or [`Owned`] argument
//! guarantees that no function in the domain is in use, or that the caller owns all of them.

use crate::{
    reflck::{
        Address,
        Binding,
        Event,
        Hardware,
        Membership,
        Obstacle,
        Owned,
        Report,
        ResetFailure,
        ResetScope,
        Settled,
        Status,
        Stranger,
        Unused, //
    },
    vfio::{
        log_ratelimited,
        BoundFunction,
        BoundTo,
        Context,
        ContextId,
        Dependent,
        Function,
        Owner,
        TracedReset,
        DRIVER_NAME, //
    },
};
use core::ops::ControlFlow;
use kernel::{
    device,
    fmt::{
        self,
        Write, //
    },
    pci,
    prelude::*,
    str::Formatter, //
};

/// Resets a dirty function before it is unbound.
///
/// So no state leaks to the next driver. The function is dirty if it was open at unbind: the close
/// could not take the device lock then. It stays dirty if it cannot be reset without its siblings,
/// or does not answer.
pub(crate) fn reset_unbound(pdev: &pci::Device<device::Core<'_>>) -> Result {
    // The reset of a function that does not answer would only cost a minute.
    let result = match Function::is_present(pdev) {
        true => Function::reset(pdev),
        false => Err(ENODEV),
    };

    match result {
        Ok(()) => dev_info!(pdev, "function reset done before it is unbound\n"),
        Err(error) => dev_warn!(
            pdev,
            "unbound without the reset that it still needs (error {})\n",
            error.to_errno()
        ),
    }

    result
}

/// Fills in the device ID of each dependent in `context`, or whether the caller owns it.
pub(crate) fn hot_reset_info(
    membership: &Membership<Function>,
    context: &Context<'_>,
    dependents: &mut [Dependent],
) -> Result {
    membership.for_each_binding(context.id(), |function, binding| {
        let address = function.address();
        let devid = match binding {
            Binding::Bound(bound, id) if bound == context.id() => id,
            Binding::Unbound if context.has_group_of(function) => Dependent::OWNED,
            _ => Dependent::NOT_OWNED,
        };

        for dependent in &mut *dependents {
            if dependent.is_at(address) {
                dependent.set_devid(devid);
            }
        }
    })
}

/// Resets the slot or bus if `owner` owns every function of it.
pub(crate) fn hot_reset(membership: &Membership<Function>, owner: &Owner<'_>) -> Result {
    membership.reset_owned(|function, binding| owner.owns(function, binding.context()))
}

impl Hardware for Function {
    type Context = ContextId;

    type Failure = ResetFailure<BoundTo>;

    fn address(&self) -> Address {
        Function::address(self)
    }

    /// Resets the slot or bus if that affects only members without virtual functions, which answer.
    ///
    /// A function that is not a member can be in use at any time. Members stay bound during the
    /// reset, because leaving the domain takes the reflck.
    ///
    /// Unused functions are in D3hot. They are resumed for the reset, and runtime PM suspends them
    /// after it.
    fn reset_unused(
        &self,
        scope: &ResetScope,
        unused: &Unused<'_, Self>,
    ) -> Result<(), ResetFailure<BoundTo>> {
        let function = BoundFunction::of_member(self, unused).map_err(ResetFailure::Failed)?;

        if !function.can_reset_affected() {
            return Err(ResetFailure::NoReset);
        }
        if let Some(first) = find_obstacle(&function, unused, false) {
            return Err(ResetFailure::Obstacles(
                first,
                all_obstacles(&function, unused),
            ));
        }
        // The PCI core would wait a minute for it, and the siblings for the PCI core.
        if let Some(gone) = unused.iter().find(|member| member.is_still_gone()) {
            let first = (gone.address(), Obstacle::Gone);
            return Err(ResetFailure::Obstacles(first, KVec::new()));
        }

        let traced = TracedReset::begin(self, scope, false, unused.len());
        let mut result = function.reset_affected(unused);
        if result.is_ok() && unused.iter().any(Function::is_gone) {
            result = Err(ENODEV);
        }
        let duration = traced.end(&result);

        result.map_err(ResetFailure::Failed)?;
        dev_info!(
            self.dev(),
            "{} reset of {scope} done: {} functions in {} ms\n",
            scope.kind(),
            unused.len(),
            duration.as_millis()
        );

        Ok(())
    }

    /// Resets the slot or bus if that affects only members without virtual functions.
    ///
    /// Fails with [`EINVAL`] if there is no such reset or it would affect another function,
    /// [`EBUSY`] if a function is being accessed, [`EAGAIN`] if a device lock is held elsewhere,
    /// [`ENODEV`] if a function was unplugged, or the error of a resume.
    fn reset_owned(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        let function = BoundFunction::of_member(self, owned)?;

        if let Some((address, obstacle)) = find_obstacle(&function, owned, true) {
            dev_dbg!(
                self.dev(),
                "hot reset of {scope} refused: {address} {obstacle}\n"
            );
            return Err(obstacle.error());
        }
        if !function.can_reset_affected() {
            return Err(EINVAL);
        }

        let traced = TracedReset::begin(self, scope, true, owned.len());
        let result = function.reset_affected(owned);
        traced.end(&result);

        result
    }

    fn reset_alone(&self) -> Result {
        Function::reset_alone(self)
    }

    fn finish_close(&self, force: bool) -> Result<bool> {
        Function::finish_close(self, force)
    }

    fn needs_domain(&self) -> bool {
        !self.resets_alone()
    }

    fn wants_domain(&self) -> bool {
        self.params().bus_reset
    }

    fn publish(&self, status: Status, is_settled: bool) {
        self.announce(status, is_settled);
    }

    fn is_untouched(&self, wakes: u32) -> bool {
        Function::is_untouched(self, wakes)
    }

    fn was_exposed(&self) -> bool {
        Function::was_exposed(self)
    }

    fn is_exposed(&self) -> bool {
        Function::is_exposed(self)
    }

    fn shares_iommu_group(&self, other: &Self) -> bool {
        Function::shares_iommu_group(self, other)
    }

    fn notify(&self, scope: &ResetScope, event: Event<'_, Self>) {
        match event {
            Event::Wait(purpose) => self.trace_wait(scope, purpose.name()),
            Event::Claim(purpose, waited) => self.trace_claim(scope, purpose.name(), waited),
            Event::Settle { open, bound, dirty } | Event::Rebound { open, bound, dirty } => {
                self.trace_settle(scope, open, bound, dirty)
            }
            Event::Deferred { user } => {
                // The function itself defers the reset until iommufd has unbound it.
                if user != self.address() && log_ratelimited() {
                    dev_info!(
                        self.dev(),
                        "{} reset of {scope} skipped: {user} is in use\n",
                        scope.kind()
                    );
                }
            }
            Event::ResetFailed {
                failure,
                dirty,
                retry_in,
            } => {
                let kind = scope.kind();
                let report = Report {
                    failure,
                    driver: DRIVER_NAME.to_str().unwrap_or_default(),
                    dirty,
                    retry_in,
                };
                if !failure.is_at_will() {
                    dev_warn!(self.dev(), "{kind} reset of {scope} {report}\n");
                } else if log_ratelimited() {
                    dev_info!(self.dev(), "{kind} reset of {scope} {report}\n");
                }
            }
        }
    }
}

impl Stranger for BoundTo {
    fn is_changing(&self) -> bool {
        matches!(self, Self::Changing)
    }

    fn is_bindable(&self) -> bool {
        matches!(self, Self::Nothing | Self::Driver(_))
    }
}

/// Writes the functions that forbid a slot or bus reset of the domain, and why. Takes the reflck.
pub(crate) fn list_obstacles(
    membership: &Membership<Function>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    // It has no such reset.
    if membership.scope().is_private() {
        return Ok(());
    }

    membership.survey(|used, settled| {
        for address in used {
            f.write_fmt(fmt!("{address} is in use\n"))?;
        }
        let Some(settled) = settled else {
            return Ok(());
        };
        let Ok(function) = BoundFunction::of_member(membership.hardware(), settled) else {
            return Ok(());
        };
        if !function.can_reset_affected() {
            return f.write_fmt(fmt!("{} has no reset\n", membership.scope()));
        }
        let mut result = Ok(());
        for_each_obstacle(&function, settled, false, |address, obstacle| {
            result = f.write_fmt(fmt!("{address} {obstacle}\n"));
            ControlFlow::Continue(())
        });

        result
    })
}

/// Returns the first function that forbids a slot or bus reset of the domain.
fn find_obstacle(
    function: &BoundFunction<'_>,
    members: &Settled<'_, Function>,
    is_asked_for: bool,
) -> Option<(Address, Obstacle<BoundTo>)> {
    let mut found = None;

    for_each_obstacle(function, members, is_asked_for, |address, obstacle| {
        found = Some((address, obstacle));
        ControlFlow::Break(())
    });

    found
}

/// Returns all of them, or none without the memory for that.
fn all_obstacles(
    function: &BoundFunction<'_>,
    members: &Settled<'_, Function>,
) -> KVec<(Address, Obstacle<BoundTo>)> {
    let mut found = KVec::new();
    let mut count = 0;

    // No allocation while the bus is walked.
    for_each_obstacle(function, members, false, |_, _| {
        count += 1;
        ControlFlow::Continue(())
    });
    if found.reserve(count, GFP_KERNEL).is_ok() {
        for_each_obstacle(function, members, false, |address, obstacle| {
            match found.push_within_capacity((address, obstacle)) {
                Ok(()) => ControlFlow::Continue(()),
                // There are more by now.
                Err(_) => ControlFlow::Break(()),
            }
        });
    }

    found
}

/// Calls `visit` with each function that forbids a slot or bus reset of the domain.
///
/// A bridge on the bus stands for the functions below it. If the owner of all functions asks for
/// the reset, a function whose resets root has disabled is no obstacle. May sleep, but `visit` must
/// not allocate.
fn for_each_obstacle(
    function: &BoundFunction<'_>,
    members: &Settled<'_, Function>,
    is_asked_for: bool,
    mut visit: impl FnMut(Address, Obstacle<BoundTo>) -> ControlFlow<()>,
) {
    let mut flow = ControlFlow::Continue(());
    let bus = function.address().bus;

    function.for_each_affected(|affected| {
        let address = affected.address();
        if address.bus != bus {
            return ControlFlow::Continue(());
        }
        let obstacle = Obstacle::of_affected(
            members.contains(address),
            affected.has_virtual_functions(),
            || affected.bound_to(),
        );
        if let Some(obstacle) = obstacle {
            flow = visit(address, obstacle);
        }

        flow
    });

    for member in members.iter() {
        if flow.is_break() {
            return;
        }
        let obstacle = Obstacle::of_member(
            member.is_unplugged(),
            member.is_unbinding(),
            members.len() == 1,
            !is_asked_for && member.resets_disabled(),
        );
        if let Some(obstacle) = obstacle {
            flow = visit(member.address(), obstacle);
        }
    }
}
