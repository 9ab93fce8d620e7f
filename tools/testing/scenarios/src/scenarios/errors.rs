// SPDX-License-Identifier: GPL-2.0

//! Errors that PCI Express reports of a function (AER). The kernel's `aer_inject` makes the
//! interrupt handler of the root port find them.

use std::fs;

use anyhow::{Context, Result};
use lab::driver::is_exported;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::resets::Counts;
use lab::sysfs::Bdf;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

use super::with_module;
use crate::bench::measure::wait_asleep;
use crate::registers::{bars, Content, Registers};

/// Intercepts accesses to the config space of the buses that it was used on, while it is loaded.
pub(super) const INJECTOR: &str = "aer_inject";

// Uncorrectable errors (linux/pci_regs.h): a nonfatal and a fatal one.
const COMPLETION_TIMEOUT: u32 = 0x0000_4000;
const MALFORMED_TLP: u32 = 0x0004_0000;

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    with_module(t, "the user learns of errors", INJECTOR, |t| injected(lab, t))
}

fn injected(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let device = lab.topology.device(PF)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&device])?;
    inject(lab, t, &device, "unused", COMPLETION_TIMEOUT, 0)?;
    lab.power(t, &device, "after an error while unused", "D3hot")?;

    let event = EventFd::new(EFD_NONBLOCK).context("making an event")?;
    let user = User::new()?;
    let opened = user.open(&device)?;
    let what = "open, without an event";
    inject(lab, t, &device, what, COMPLETION_TIMEOUT, 0)?;
    drop(opened);

    let opened = user.open_with_error_event(&device, &event)?;
    signalled(t, &event, "without an error", None);
    for (what, error, resets) in
        [("a nonfatal error", COMPLETION_TIMEOUT, 0), ("a fatal error", MALFORMED_TLP, 1)]
    {
        inject(lab, t, &device, what, error, resets)?;
        signalled(t, &event, &format!("at {what}"), Some(1));
        lab.state(t, &device, &format!("after {what}"), "open")?;
        lab.power(t, &device, &format!("after {what}"), "D0")?;
    }
    drop(opened);

    inject(lab, t, &device, "closed", COMPLETION_TIMEOUT, 0)?;
    signalled(t, &event, "of a closed function", None);
    lab.power(t, &device, "closed", "D3hot")?;
    cleared(t, &user, &device)?;
    binding.release()
}

/// AER resets the bus for a fatal error, and restores nothing.
fn cleared(t: &mut Test<'_>, user: &User, device: &Device) -> Result<()> {
    let what = "an unused function keeps its BARs at a fatal error";
    if !is_exported("vfio_pci_core_reset_prepare")? {
        t.skip(what, "this vfio-pci-core does not restore them");
        return Ok(());
    }
    let before = bars(device)?;
    recover(device, MALFORMED_TLP)?;
    wait_asleep(device)?;
    let after = bars(device)?;
    t.check(what, before == after, || format!("{before:x?} became {after:x?}"));
    let content = Registers::open(user, device)?.content()?;
    t.eq("content after a fatal error while unused", Content::ZERO, content);
    Ok(())
}

/// Injects an error, and checks that the kernel recovers, and its bus resets.
fn inject(
    lab: &Lab,
    t: &mut Test<'_>,
    function: &Bdf,
    what: &str,
    error: u32,
    bus: usize,
) -> Result<()> {
    let when = format!("at an error: {what}");
    let lines = lab.counted(t, &when, Counts::bus(bus), || recover(function, error))?;
    let last = lines.last().map_or("", String::as_str);
    let outcome = last.rsplit(' ').next().unwrap_or("");
    let recovery = format!("the kernel's recovery: {what}");
    t.seen(recovery, "successful", outcome);
    Ok(())
}

/// Injects an error, and waits for the kernel's recovery. Returns the log lines about that.
fn recover(function: &Bdf, error: u32) -> Result<Vec<String>> {
    let mut mark = Mark::here()?;
    fs::write(format!("/dev/{INJECTOR}"), message(function, error))
        .with_context(|| format!("injecting an error of {function}"))?;
    let recovery = || mark.lines_with(&["device recovery"]);
    let some = |lines: &Result<Vec<String>>| !matches!(lines, Ok(lines) if lines.is_empty());
    wait::until(wait::SETTLE, recovery, some)
}

pub(super) fn inject_nonfatal(function: &Bdf) -> Result<()> {
    recover(function, COMPLETION_TIMEOUT).map(drop)
}

/// Returns a `struct aer_error_inj` (`drivers/pci/pcie/aer_inject.c`).
fn message(function: &Bdf, uncorrectable: u32) -> Vec<u8> {
    let [domain, bus, device, number] = function.numbers();
    let mut bytes = vec![bus as u8, device as u8, number as u8, 0];
    let (correctable, header) = (0_u32, [0_u32; 4]);
    for field in [&[uncorrectable, correctable][..], &header, &[domain]].concat() {
        bytes.extend(field.to_ne_bytes());
    }
    bytes
}

/// Checks how often `event` was signalled since the last call, if at all.
fn signalled(t: &mut Test<'_>, event: &EventFd, when: &str, expected: Option<u64>) {
    let shown = |count: Option<u64>| count.map_or("never".to_owned(), |count| count.to_string());
    let got = shown(event.read().ok());
    t.seen(format!("signalled {when}"), shown(expected), got);
}
