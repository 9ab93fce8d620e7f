// SPDX-License-Identifier: GPL-2.0

//! Opening and releasing several functions at once, one thread a function.

use crate::bench::measure;
use crate::bench::measure::Done;
use crate::bench::measure::Work;
use crate::topology::Device;
use crate::vfio::Opened;
use crate::vfio::User;
use crate::wait;
use crate::Error;
use crate::Result;

/// Opens functions.
pub(super) fn open(user: &User, functions: &[Device]) -> Result<Vec<Done<Opened>>> {
    let work = functions
        .iter()
        .map(|function| -> Work<'_, Opened> { Box::new(move || user.open(function)) });
    measure::together(work.collect())
}

/// Releases functions.
pub(super) fn release(opened: Vec<Opened>) -> Result<Vec<Done<()>>> {
    let work = opened.into_iter().map(|opened| -> Work<'_, ()> {
        Box::new(move || {
            drop(opened);
            Ok(())
        })
    });
    measure::together(work.collect())
}

/// Does once what takes longer the first time, with a few of the functions.
pub(super) fn warm_up(user: &User, functions: &[Device]) -> Result<()> {
    let few = &functions[..functions.len().min(2)];
    let opened = open(user, few)?;
    release(opened.into_iter().map(|done| done.value).collect())?;
    Ok(())
}

/// Waits until functions that nobody uses are asleep.
pub(super) fn wait_asleep(functions: &[Device]) -> Result<()> {
    for function in functions {
        let status = wait::until(
            wait::SETTLE,
            || function.read("power/runtime_status"),
            |status| status.as_ref().is_ok_and(|status| status == "suspended"),
        )?;
        if status != "suspended" {
            return Err(Error::new(format!(
                "{function} is '{status}' and not 'suspended' while nobody uses it"
            )));
        }
    }
    Ok(())
}
