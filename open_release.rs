// SPDX-License-Identifier: GPL-2.0

//! Opening and releasing a function.
//!
//! Both claim the function under the reflck, do its own work outside of it, so that the siblings of
//! a function do not wait for it, and settle under the reflck what has come of it. So does what
//! iommufd does to a function: a user of iommufd has it bound before it is opened, and unbound
//! after it is released.

use crate::{
    reflck::Membership,
    reset,
    vfio::{
        ClosedDevice,
        ContextId,
        DisabledDevice,
        EnabledDevice,
        Function, //
    },
    VfioPciRs, //
};
use kernel::prelude::*;

/// Opens a function: wakes, enables and resets it.
///
/// If that fails, the function has been released, with all that follows: the domain may have become
/// unused by it.
pub(crate) fn open(device: ClosedDevice<'_, VfioPciRs>) -> Result<EnabledDevice<'_, VfioPciRs>> {
    let opening = device.data().open()?;
    let enabled = device.enable()?;

    opening.succeed();

    Ok(enabled)
}

/// Releases a function: quiesces and resets it, and resets its slot or bus if this was the last
/// user there and something was left dirty.
pub(crate) fn release(device: EnabledDevice<'_, VfioPciRs>) -> DisabledDevice<'_, VfioPciRs> {
    let membership = device.data();

    let closing = match membership.close() {
        Ok(closing) => closing,
        Err(_) => {
            // vfio core releases only what it has opened, and only once.
            kernel::warn_on!(true);
            return device.disable(|_| ());
        }
    };

    device.disable(|quiesced| {
        closing.settle(reset::reset_function(membership.hardware(), &quiesced));
    })
}

/// Has a function bound to an iommufd context, before it is opened.
pub(crate) fn bind_iommufd(
    membership: &Membership<Function>,
    context: ContextId,
    bind: impl FnOnce() -> Result<u32>,
) -> Result {
    let binding = membership.bind(context)?;
    let id = bind()?;

    binding.bound(id);

    Ok(())
}

/// Has a function unbound from its iommufd context, after it was released: then it is that the
/// domain may have become unused.
pub(crate) fn unbind_iommufd(membership: &Membership<Function>, unbind: impl FnOnce()) {
    let unbinding = membership.unbind();

    // vfio core unbinds only what it has bound, and only once.
    kernel::warn_on!(unbinding.is_err());
    unbind();
}

/// Has the attachment of a function changed, which accesses it, while its domain is not reset.
pub(crate) fn attach_iommufd<R>(
    membership: &Membership<Function>,
    change: impl FnOnce() -> R,
) -> R {
    let attaching = membership.attach();

    // vfio core attaches only what is bound.
    kernel::warn_on!(attaching.is_err());
    change()
}
