// SPDX-License-Identifier: GPL-2.0

//! Scenario 11: a QEMU that holds two functions of a bus is killed. The kernel closes its files,
//! which is all that it takes: both functions are released, their bus is reset, and every function
//! there is powered down.

use crate::ktap::Test;
use crate::lab::Lab;
use crate::qemu::Qemu;
use crate::trace::Counts;
use crate::Result;

const FUNCTIONS: usize = 8;
const ASSIGNED: usize = 2;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    let devices = lab.topology.family("qemu", FUNCTIONS)?;
    let (assigned, others) = devices.split_at(ASSIGNED);
    lab.driver.load(&[])?;
    let binding = lab.bind(&devices)?;
    for device in &devices {
        lab.power(t, device, "before QEMU", "D3hot")?;
    }

    let mut qemu = Qemu::start(assigned, &lab.results, "killed-qemu")?;
    let seen = qemu.wait_seen(ASSIGNED)?;
    t.note(format!("QEMU's firmware has set up {seen:?}"));
    for device in assigned {
        lab.power(t, device, "in QEMU", "D0")?;
        lab.state(t, device, "in QEMU", "open")?;
    }
    for device in others {
        lab.power(t, device, "beside QEMU", "D3hot")?;
        lab.state(t, device, "beside QEMU", "idle")?;
    }
    let domain_resets = lab.domain_resets(&devices[0])?;

    lab.tracer.mark()?;
    let status = qemu.kill()?;
    t.note(format!("QEMU ended with {status}"));
    lab.comes_to_be_unreferenced(t)?;
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
