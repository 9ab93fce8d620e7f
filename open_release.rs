// SPDX-License-Identifier: GPL-2.0

//! Open and close of a function.
//!
//! Both claim the function under the reflck, work on it with the reflck dropped, and record the
//! result under the reflck. So the siblings of a function do not wait for it. The iommufd
//! operations do the same: iommufd binds a function before its user opens it, and unbinds it after
//! the close.

use crate::{
    reflck::Membership,
    variant::Variant,
    vfio::{
        log_ratelimited,
        ClosedDevice,
        ContextId,
        DisabledDevice,
        EnabledDevice,
        Function,
        Quiesced, //
    }, //
};
use kernel::prelude::*;

/// Opens a function: resumes, enables and resets it.
///
/// A failed open counts as a close: if it leaves the domain unused, a reset may follow. Fails with
/// [`ENODEV`] for a function that does not answer. Fails with [`EIO`] for a dirty function that
/// neither its own reset nor that of its domain can clean, if the parameter `strict` is set.
pub(crate) fn open<V: Variant>(device: ClosedDevice<'_, V>) -> Result<EnabledDevice<'_, V>> {
    let membership = device.data();
    let function = membership.hardware();
    let opening = membership.open()?;
    let params = function.params();
    function.begin_open();
    let enabled = device.enable(params.skip_clean_reset);
    match &enabled {
        Ok(_) => _ = function.set_gone(false),
        // vfio-pci-core has logged it.
        Err(ENODEV) => _ = function.set_gone(true),
        Err(_) => (),
    }
    let enabled = enabled?;

    if params.strict && membership.is_dirty() && !enabled.was_reset() {
        // Dropping disables it.
        drop(enabled);
        if log_ratelimited() {
            dev_warn!(
                function.dev(),
                "not opened: it has the state of its last user, and cannot be reset\n"
            );
        }
        return Err(EIO);
    }

    function.end_open(enabled.was_reset());
    opening.succeed(enabled.was_reset());

    Ok(enabled)
}

/// Returns whether the open of a function can skip its reset. vfio-pci-core asks that in
/// [`ClosedDevice::enable`], after it has woken the function.
pub(crate) fn is_clean(membership: &Membership<Function>) -> bool {
    let function = membership.hardware();
    let is_clean =
        function.params().skip_clean_reset && membership.is_clean() && function.can_skip_reset();
    if is_clean {
        function.skip_reset();
    }

    is_clean
}

/// Closes a function: quiesces and resets it, and puts it to sleep.
///
/// vfio-pci-core calls [`finish_later`] and, if that declines, [`quiesced`] meanwhile. If this was
/// the last user of the slot or bus and anything there is dirty, resets that.
pub(crate) fn close<V: Variant>(device: EnabledDevice<'_, V>) -> DisabledDevice<'_, V> {
    // Without an IOMMU, DMA reaches the memory that a killed user had. It is free by now.
    if device.data().hardware().has_iommu() {
        V::before_close(&device);
    }

    let membership = device.data();
    let function = membership.hardware();

    match membership.close() {
        // `finish_later()` may take it over.
        Ok(closing) => {
            function.begin_reset();
            closing.detach();
        }
        // vfio core only closes a device that is open.
        Err(_) => _ = kernel::warn_on!(true),
    }

    let disabled = device.disable();
    // Else the work of the function ends the close.
    if let Some(closing) = membership.closing() {
        let needs_reset = disabled.needs_reset();
        // One that still needs a reset, of its domain, would be woken for that at once.
        if !needs_reset {
            function.suspend();
        }
        closing.settle(needs_reset);
    }

    disabled
}

/// Leaves the rest of a close to work, if that is as safe. Returns whether it did.
///
/// The function does no DMA any more. A failed open resets its function itself. One that does not
/// answer is not reset, and its pending transactions are not waited for.
pub(crate) fn finish_later(membership: &Membership<Function>) -> bool {
    let function = membership.hardware();

    if !function.answers() || !function.params().background_reset {
        return false;
    }
    let Some(closing) = membership.closing() else {
        return false;
    };
    if !function.begin_half_close() {
        closing.detach();
        return false;
    }
    closing.finish_later();

    true
}

/// Records the reset of a function that was quiesced, while the function is awake.
pub(crate) fn quiesced<V: Variant>(device: &Quiesced<'_, V>) {
    let membership = device.data();

    // A failed open quiesces the function, too. Its claim is opening, and nothing is recorded.
    if let Some(closing) = membership.closing() {
        device.record_reset(membership.hardware());
        closing.detach();
    }
}

/// Binds a function to an iommufd context with `bind`, before it is opened.
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

/// Unbinds a function from its iommufd context with `unbind`, after it was closed.
///
/// The close has reset the domain if it was unused. Otherwise a reset may follow.
pub(crate) fn unbind_iommufd(membership: &Membership<Function>, unbind: impl FnOnce()) {
    let unbinding = membership.unbind();

    // vfio core only unbinds a device that is bound.
    kernel::warn_on!(unbinding.is_err());
    unbind();
}

/// Attaches a function with `attach`, which accesses it. Blocks a reset of the domain meanwhile.
pub(crate) fn attach_iommufd(
    membership: &Membership<Function>,
    attach: impl FnOnce() -> Result,
) -> Result {
    let _attaching = membership.attach()?;

    attach()
}

/// Detaches a function with `detach`, which accesses it. Blocks a reset of the domain meanwhile.
pub(crate) fn detach_iommufd(membership: &Membership<Function>, detach: impl FnOnce()) {
    let detaching = membership.detach();

    // vfio core only detaches a device that is bound.
    kernel::warn_on!(detaching.is_err());
    detach();
}
