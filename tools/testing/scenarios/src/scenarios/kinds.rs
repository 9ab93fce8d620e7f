// SPDX-License-Identifier: GPL-2.0

//! The reset domain of a function by its place, and the reset when the last function of the domain
//! is closed.

use std::thread;

use anyhow::Result;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::resets::Counts;
use lab::sriov::VirtualFunctions;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;

const NONE: Counts = Counts::NONE;
const VFS: usize = 7;
const PRIVATE: &str = "private";

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    all(lab, t, |state| state)?;
    t.note("with disable_idle_d3");
    lab.driver.load(&["disable_idle_d3=1"])?;
    all(lab, t, |_| "D0")
}

/// `idle` returns the power state of unused functions, which is the given one by default.
fn all(lab: &Lab, t: &mut Test<'_>, idle: fn(&'static str) -> &'static str) -> Result<()> {
    for (what, family, kind, state, at_last_close) in [
        ("slot", "slot", "slot", "D3hot", Counts::slot(1)),
        ("bus", "bus", "bus", "D3hot", Counts::bus(1)),
        ("conventional bus", "conv", "bus", "D0", Counts::bus(1)),
    ] {
        if family == "conv" && cfg!(target_arch = "aarch64") {
            t.skip(what, "its functions have one stream ID, so a second one cannot be bound");
            continue;
        }
        let devices = lab.topology.family(family, 2)?;
        uses(lab, t, what, &devices, kind, idle(state), [NONE, at_last_close])?;
    }
    let pf = lab.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    for (what, devices, state, own_resets) in [
        ("root bus, FLR", vec![lab.topology.device("root.a")?], "D3hot", 1),
        ("root bus, no reset", vec![lab.topology.device("root.b")?], "D0", 0),
        ("VF", enabled.devices(), "D0", VFS),
    ] {
        uses(lab, t, what, &devices, PRIVATE, idle(state), [Counts::flr(own_resets); 2])?;
    }
    Ok(())
}

/// Opens and closes functions, which share a domain of a `kind` or have private ones. Checks the
/// resets at the opens and at the closes.
fn uses(
    lab: &Lab,
    t: &mut Test<'_>,
    what: &str,
    devices: &[Device],
    kind: &str,
    idle: &str,
    expected: [Counts; 2],
) -> Result<()> {
    let binding = lab.bind(devices)?;
    let members = if kind == PRIVATE { 1 } else { devices.len() };
    let name_of = |device: &Device| match kind {
        "slot" => device.slot().to_owned(),
        "bus" => device.bus().to_owned(),
        _ => device.bdf().to_string(),
    };
    for device in devices {
        let name = name_of(device);
        let shown = format!("{kind} {name} with {members} members ({what})");
        lab.domain(t, device, &shown, |domain| {
            (&*domain.kind, &domain.name, domain.members.len()) == (kind, &name, members)
        })?;
    }

    let user = User::new()?;
    let mut mark = Mark::here()?;
    let [at_open, at_close] = expected;
    let opened =
        lab.counted(t, &format!("at the opens ({what})"), at_open, || user.open_all(devices))?;
    lab.close(t, &format!("at the closes ({what})"), at_close, opened)?;
    if idle == "D0" {
        // The time to fall asleep, which they must not.
        thread::sleep(wait::STAY);
    }
    let resets = at_close.bus + at_close.slot;
    let dirty = usize::from(at_close == NONE);
    for device in devices {
        lab.power(t, device, &format!("closed ({what})"), idle)?;
        lab.domain_idle(t, device, &format!("closed ({what})"), dirty, resets as u64)?;
    }
    if lab.driver.shows_domains() {
        let done = format!("{kind} reset of {kind} {} done", name_of(&devices[0]));
        let lines = mark.lines_with(&[&done])?;
        t.eq(format!("log lines of resets ({what})"), resets, lines.len());
    }
    drop(user);
    binding.release()
}
