// SPDX-License-Identifier: GPL-2.0

//! Opening and releasing a function.
//!
//! Both claim the function under the reflck, do its own work outside of it, so that the siblings of
//! a function do not wait for it, and settle under the reflck what has come of it.

use crate::{
    reset,
    vfio::{
        ClosedDevice,
        DisabledDevice,
        EnabledDevice, //
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
