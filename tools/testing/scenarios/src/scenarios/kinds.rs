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

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    for parameters in [&[][..], &["disable_idle_d3=1"]] {
        t.note(format!("with the parameters {parameters:?}"));
        lab.driver.load(parameters)?;
        all(lab, t)?;
    }
    Ok(())
}

/// Uses functions of all kinds.
fn all(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    for (what, family, kind, at_last_close) in [
        ("slot", "slot", "slot", Counts::slot(1)),
        ("bus", "bus", "bus", Counts::bus(1)),
        ("conventional bus", "conv", "bus", Counts::bus(1)),
    ] {
        let devices = lab.topology.family(family, 2)?;
        shared_domain(lab, t, what, &devices, kind, at_last_close)?;
    }
    let root = lab.topology.device("root.a")?;
    private_domains(lab, t, "root bus, FLR", &[root], 1)?;
    let root = lab.topology.device("root.b")?;
    private_domains(lab, t, "root bus, no reset", &[root], 0)?;

    let pf = lab.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    private_domains(lab, t, "VF", &enabled.devices(), VFS)
}

/// All functions of a place share one domain, which is reset at the last close.
fn shared_domain(
    lab: &Lab,
    t: &mut Test<'_>,
    what: &str,
    devices: &[Device],
    kind: &str,
    at_last_close: Counts,
) -> Result<()> {
    let idle = idle_power_states(lab, devices)?;
    let binding = lab.bind(devices)?;
    let first = &devices[0];
    let name = match kind {
        "slot" => first.slot(),
        _ => first.bus(),
    };
    let members = format!("{kind} {name} with {} members", devices.len());
    lab.domain(t, first, &members, |domain| {
        let all_in = devices.iter().all(|d| domain.member(d).is_some());
        let same = domain.kind == kind && domain.name == name;
        same && all_in && domain.members.len() == devices.len()
    })?;

    let user = User::new()?;
    let mut mark = Mark::here()?;
    let mut opened = lab.counted(t, &format!("at the opens of the {what}"), NONE, || {
        user.open_all(devices)
    })?;
    let last = opened.pop();
    let last_close = format!("the last close of the {what}");
    lab.close(t, &format!("before {last_close}"), NONE, opened)?;
    lab.close(t, &format!("at {last_close}"), at_last_close, last)?;
    wait_if_awake(&idle);
    for (device, idle) in devices.iter().zip(idle) {
        lab.power(t, device, &format!("after the reset of the {what}"), idle)?;
    }
    lab.domain_idle(t, first, "closed", 0, 1)?;
    if lab.driver.shows_domains() {
        let done = format!("{kind} reset of {kind} {name} done");
        let lines = mark.lines_with(&[&done])?;
        t.eq(format!("log lines with '{done}'"), 1, lines.len());
    }
    drop(user);
    binding.release()
}

/// Each function is alone in its domain, which has no bus reset. `own_resets` of them have FLR.
fn private_domains(
    lab: &Lab,
    t: &mut Test<'_>,
    what: &str,
    devices: &[Device],
    own_resets: usize,
) -> Result<()> {
    let idle = idle_power_states(lab, devices)?;
    let binding = lab.bind(devices)?;
    for device in devices {
        lab.domain(t, device, &format!("private, alone ({what})"), |domain| {
            let own = domain.kind == "private" && domain.name == device.bdf().to_string();
            own && domain.members.len() == 1
        })?;
    }
    let expected = Counts::flr(own_resets);
    let user = User::new()?;
    let opened = lab.counted(t, &format!("at the opens ({what})"), expected, || {
        user.open_all(devices)
    })?;
    lab.close(t, &format!("at the closes ({what})"), expected, opened)?;
    wait_if_awake(&idle);
    for (device, idle) in devices.iter().zip(idle) {
        lab.power(t, device, &format!("closed ({what})"), idle)?;
        lab.domain_idle(t, device, "closed", usize::from(own_resets == 0), 0)?;
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
