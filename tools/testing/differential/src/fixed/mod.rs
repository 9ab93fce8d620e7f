// SPDX-License-Identifier: GPL-2.0

//! The fixed script: all of the user API, right and wrong, one file for each part of it.

use vfio_pci_rs_guest::Result;

use crate::call::At;
use crate::call::Call;
use crate::facts::Facts;
use crate::session::Mode;
use crate::session::Session;
use crate::sysfs;

mod arguments;
mod config;
mod features;
mod info;
mod irqs;
mod opening;
mod regions;
mod resets;

pub(crate) use regions::clear_all;
pub(crate) use resets::hot_reset;

/// Runs all of it on a device that is bound and closed. Returns what the device says of itself.
pub fn run(session: &mut Session<'_>, brief: bool) -> Result<Facts> {
    sysfs::of_function(session)?;
    match session.mode() {
        Mode::Group => opening::by_group(session),
        Mode::Cdev => opening::by_character_device(session),
    }
    let facts = Facts::gather(session);
    info::run(session, &facts);
    arguments::run(session);
    regions::run(session, &facts);
    irqs::run(session, &facts);
    features::run(session, &facts);
    resets::run(session, &facts);
    config::run(session, &facts, brief);
    session.reopen();
    whole_config(session, &facts);
    restore_config(session, &facts);
    Ok(facts)
}

/// Reads configuration space, all of it at once.
fn whole_config(session: &mut Session<'_>, facts: &Facts) {
    session.call(Call::read(At::config(0), facts.config.len() as u32));
}

/// Gives configuration space back what it had in it, but for its header: what no capability has, a
/// device may keep through any reset.
pub(crate) fn restore_config(session: &mut Session<'_>, facts: &Facts) {
    const HEADER: usize = 0x40;
    if let Some(bytes) = facts.config.get(HEADER..) {
        session.call(Call::write(At::config(HEADER as u64), bytes));
    }
}

/// Enables or disables memory of the device, and its ports.
fn enable_memory(session: &mut Session<'_>, enable: bool) {
    let command = if enable { 0x0003_u16 } else { 0 };
    session.call(Call::write(At::config(4), &command.to_le_bytes()));
}

/// Puts the device into a power state, if it has any.
fn set_power(session: &mut Session<'_>, facts: &Facts, state: u8) {
    if let Some(control) = facts.pm_control {
        session.call(Call::write(At::config(u64::from(control)), &[state]));
    }
}
