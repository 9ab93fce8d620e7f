// SPDX-License-Identifier: GPL-2.0

//! Scenario 11: a QEMU that holds two functions is killed. The kernel closes its files, which is
//! all that it takes: both functions are released, reset and powered down.

use crate::ktap::Test;
use crate::lab::Lab;
use crate::qemu::Qemu;
use crate::trace::Counts;
use crate::wait;
use crate::Result;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    let devices = [
        lab.topology.device("qemu.a")?,
        lab.topology.device("qemu.b")?,
    ];
    lab.driver.load(&[])?;
    let binding = lab.bind(&devices)?;
    for device in &devices {
        lab.power(t, device, "before QEMU", "D3hot")?;
    }

    let mut qemu = Qemu::start(
        &[devices[0].bdf(), devices[1].bdf()],
        &lab.results,
        "killed-qemu",
    )?;
    let seen = qemu.wait_seen(devices.len())?;
    t.note(format!("QEMU's firmware has set up {seen:?}"));
    for device in &devices {
        lab.power(t, device, "in QEMU", "D0")?;
        lab.state(t, device, "in QEMU", "open")?;
    }
    let domain_resets = lab.domain_resets(&devices[0])?;

    lab.tracer.mark()?;
    let status = qemu.kill()?;
    t.note(format!("QEMU ended with {status}"));
    // The kernel closes a killed process's files after its parent has heard of its death.
    wait::until(
        wait::SETTLE,
        || lab.driver.references(),
        // One that is built in has no count; its functions' power state is waited for below.
        |references| matches!(references, Ok(Some(0) | None)),
    )?;
    lab.unreferenced(t)?;
    for device in &devices {
        lab.power(t, device, "after the kill", "D3hot")?;
    }
    let calls = lab.tracer.calls()?;
    lab.resets(
        t,
        &calls,
        "after the kill",
        Counts {
            bus: 1,
            ..Counts::default()
        },
    );
    t.eq(
        "bus resets at release after the kill",
        1,
        calls.at_release().bus_or_slot(),
    );
    lab.domain_idle(t, &devices[0], "after the kill", 0, domain_resets + 1)?;
    binding.release()?;
    lab.unreferenced(t)
}
