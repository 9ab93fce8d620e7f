// SPDX-License-Identifier: GPL-2.0

//! Scenario 16: errors that PCI Express reports of a function (AER). They are not there, but
//! injected: the kernel's `aer_inject` has the root port's interrupt handler find them.

use std::fs::OpenOptions;
use std::io::Write;

use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::driver;
use crate::error::Doing;
use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sysfs::Bdf;
use crate::trace::Counts;
use crate::vfio::User;
use crate::wait;
use crate::Result;

const INJECTOR: &str = "aer_inject";

/// Uncorrectable errors (`linux/pci_regs.h`): one that is not fatal, and one that is.
const COMPLETION_TIMEOUT: u32 = 0x0000_4000;
const MALFORMED_TLP: u32 = 0x0004_0000;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    if let Err(e) = driver::modinfo(INJECTOR, "filename") {
        t.skip("errors are reported to the user", e);
        return Ok(());
    }
    driver::modprobe(INJECTOR, &[])?;
    let injected = injected(lab, t);
    // It stands between the kernel and the config space of the buses that it was used on.
    driver::rmmod(INJECTOR)?;
    injected
}

fn injected(lab: &Lab, t: &mut Test) -> Result<()> {
    let device = lab.topology.device(lab::PF)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&device])?;
    inject(lab, t, &device, "unused", COMPLETION_TIMEOUT, 0)?;
    lab.power(t, &device, "after an error while unused", "D3hot")?;

    let event = EventFd::new(EFD_NONBLOCK).doing("making an event")?;
    let user = User::new()?;
    let opened = user.open(&device)?;
    inject(
        lab,
        t,
        &device,
        "open, without an event",
        COMPLETION_TIMEOUT,
        0,
    )?;
    drop(opened);

    let opened = user.open_with_error_event(&device, &event)?;
    signalled(t, &event, "without an error", None);
    for (what, error, resets) in [
        ("an error that is not fatal", COMPLETION_TIMEOUT, 0),
        ("a fatal error", MALFORMED_TLP, 1),
    ] {
        inject(lab, t, &device, what, error, resets)?;
        signalled(t, &event, &format!("at {what}"), Some(1));
        lab.state(t, &device, &format!("after {what}"), "open")?;
        lab.power(t, &device, &format!("after {what}"), "D0")?;
    }
    drop(opened);

    inject(lab, t, &device, "released", COMPLETION_TIMEOUT, 0)?;
    signalled(t, &event, "of a function that is released", None);
    lab.power(t, &device, "released", "D3hot")?;
    binding.release()?;
    lab.unreferenced(t)
}

/// Injects an error of `function`; asserts that the kernel comes to an end with it, and how many
/// bus resets it makes.
fn inject(
    lab: &Lab,
    t: &mut Test,
    function: &Bdf,
    what: &str,
    error: u32,
    bus: usize,
) -> Result<()> {
    let mut mark = Mark::here()?;
    let (lines, calls) = lab.tracer.count(|| {
        let path = format!("/dev/{INJECTOR}");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&message(function, error)))
            .doing(format!("injecting an error of {function} by {path}"))?;
        wait::until(
            wait::SETTLE,
            || mark.lines_with(&["device recovery"]),
            |lines| !matches!(lines, Ok(lines) if lines.is_empty()),
        )
    })?;
    let last = lines.last().map_or("", String::as_str);
    let outcome = last.rsplit(' ').next().unwrap_or("");
    t.observe(format!("recovery: {what}"), outcome);
    t.eq(
        format!("the kernel's recovery: {what}"),
        "successful",
        outcome,
    );
    let expected = Counts {
        bus,
        ..Counts::default()
    };
    lab.resets(t, &calls, &format!("at an error: {what}"), expected);
    Ok(())
}

/// A `struct aer_error_inj` (`drivers/pci/pcie/aer_inject.c`).
fn message(function: &Bdf, uncorrectable: u32) -> Vec<u8> {
    let [domain, bus, device, number] = function.numbers();
    let mut bytes = vec![bus as u8, device as u8, number as u8, 0];
    let (correctable, header) = (0_u32, [0_u32; 4]);
    for field in [&[uncorrectable, correctable][..], &header, &[domain]].concat() {
        bytes.extend(field.to_ne_bytes());
    }
    bytes
}

/// Asserts how often `event` has been signalled since it was looked at last, if at all.
fn signalled(t: &mut Test, event: &EventFd, when: &str, expected: Option<u64>) {
    let shown = |count: Option<u64>| count.map_or("never".to_owned(), |count| count.to_string());
    let (expected, got) = (shown(expected), shown(event.read().ok()));
    t.observe(format!("signalled {when}"), &got);
    t.eq(format!("signalled {when}: {expected}"), &expected, &got);
}
