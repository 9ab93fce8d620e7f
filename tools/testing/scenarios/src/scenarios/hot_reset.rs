// SPDX-License-Identifier: GPL-2.0

//! A QEMU with all functions of a bus, none of which has its own reset. It resets the bus through
//! the driver, for all of them together, when it starts and whenever its guest reboots.

use anyhow::Result;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;

use crate::qemu::{Access, Qemu};

const FUNCTIONS: usize = 8;
const REBOOTS: usize = 2;

/// The processor is stopped: the firmware would reset the machine again after a reboot.
const STOPPED: &[&str] = &["-S"];

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let devices = lab.topology.family("qemu", FUNCTIONS)?;
    lab.driver.load(&[])?;
    let binding = lab.bind(&devices)?;
    for device in &devices {
        lab.power(t, device, "before QEMU", "D3hot")?;
    }

    lab.tracer.mark()?;
    let mut qemu = Qemu::start(Access::Groups, &devices, &lab.results, "hot-reset", STOPPED)?;
    reset_once(lab, t, &devices, "at start")?;
    for reboot in 1..=REBOOTS {
        lab.tracer.mark()?;
        qemu.reset()?;
        reset_once(lab, t, &devices, &format!("at reboot {reboot}"))?;
    }

    lab.tracer.mark()?;
    let status = qemu.quit()?;
    t.check("QEMU quits", status.success(), || status);
    lab.wait_unreferenced()?;
    lab.unreferenced(t)?;
    for device in &devices {
        lab.power(t, device, "after QEMU", "D3hot")?;
    }
    let calls = lab.tracer.calls()?;
    lab.resets(t, &calls, "after QEMU", Counts::bus(1));
    let at_release = calls.at_release().counts();
    t.eq("resets at the last close", Counts::bus(1), at_release);
    lab.domain_idle(t, &devices[0], "after QEMU", 0, REBOOTS as u64 + 2)?;
    binding.release()
}

/// Checks that QEMU has requested one reset of the bus since the tracer's last mark.
fn reset_once(lab: &Lab, t: &mut Test<'_>, devices: &[Device], when: &str) -> Result<()> {
    let calls = lab.tracer.calls()?;
    lab.resets(t, &calls, when, Counts::bus(1));
    let asked = calls.asked_by_user().counts();
    let what = format!("resets that QEMU requested {when}");
    t.eq(what, Counts::bus(1), asked);
    for device in devices {
        lab.power(t, device, when, "D0")?;
        lab.state(t, device, when, "open")?;
    }
    Ok(())
}
