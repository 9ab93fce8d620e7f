// SPDX-License-Identifier: GPL-2.0

//! The reset domain of a function by its place, and the reset when the last function of the domain
//! is closed.

use std::fs;
use std::thread;

use anyhow::Result;
use lab::driver;
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
    for parameters in [&[][..], &["disable_idle_d3=1"]] {
        t.note(format!("with the parameters {parameters:?}"));
        lab.driver.load(parameters)?;
        all(lab, t)?;
    }
    Ok(())
}

fn all(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    for (what, family, kind, at_last_close) in [
        ("slot", "slot", "slot", Counts::slot(1)),
        ("bus", "bus", "bus", Counts::bus(1)),
        ("conventional bus", "conv", "bus", Counts::bus(1)),
    ] {
        let devices = lab.topology.family(family, 2)?;
        uses(lab, t, what, &devices, kind, [NONE, at_last_close])?;
    }
    let pf = lab.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    for (what, devices, own_resets) in [
        ("root bus, FLR", vec![lab.topology.device("root.a")?], 1),
        ("root bus, no reset", vec![lab.topology.device("root.b")?], 0),
        ("VF", enabled.devices(), VFS),
    ] {
        uses(lab, t, what, &devices, PRIVATE, [Counts::flr(own_resets); 2])?;
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
    expected: [Counts; 2],
) -> Result<()> {
    let idle = idle_power_states(lab, devices)?;
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
    wait_if_awake(&idle);
    let resets = at_close.bus + at_close.slot;
    let dirty = usize::from(at_close == NONE);
    for (device, idle) in devices.iter().zip(idle) {
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

/// To be called before the functions are bound, as this wakes them.
fn idle_power_states(lab: &Lab, devices: &[Device]) -> Result<Vec<&'static str>> {
    let path = driver::parameter_path(&lab.driver.module(), "disable_idle_d3");
    match fs::read_to_string(path)?.trim_end() {
        "Y" => Ok(vec!["D0"; devices.len()]),
        _ => devices.iter().map(|d| d.idle_power_state()).collect(),
    }
}

/// Gives functions the time to fall asleep, if they must not.
fn wait_if_awake(idle: &[&str]) {
    if idle.contains(&"D0") {
        thread::sleep(wait::STAY);
    }
}
