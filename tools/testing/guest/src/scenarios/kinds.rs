// SPDX-License-Identifier: GPL-2.0

//! Scenario 7: each kind of place that a function can be in has its kind of reset domain, and
//! its kind of reset when the last function of the domain is released.

use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sriov::VirtualFunctions;
use crate::topology::Device;
use crate::trace::Calls;
use crate::trace::Counts;
use crate::vfio::Opened;
use crate::vfio::User;
use crate::Result;

const NONE: Counts = Counts {
    flr: 0,
    bus: 0,
    slot: 0,
};
const VFS: usize = 7;

/// What is expected of the functions of one place.
struct Place<'a> {
    what: &'a str,
    devices: Vec<Device>,
    kind: &'a str,
    at_last_release: Counts,
}

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    lab.driver.load(&[])?;
    let shared = [
        Place {
            what: "slot",
            devices: lab.topology.family("slot", 2)?,
            kind: "slot",
            at_last_release: Counts { slot: 1, ..NONE },
        },
        Place {
            what: "bus",
            devices: lab.topology.family("bus", 2)?,
            kind: "bus",
            at_last_release: Counts { bus: 1, ..NONE },
        },
        Place {
            what: "conventional bus",
            devices: lab.topology.family("conv", 2)?,
            kind: "bus",
            at_last_release: Counts { bus: 1, ..NONE },
        },
    ];
    for place in &shared {
        shared_domain(lab, t, place)?;
    }
    let root = lab.topology.device("root.a")?;
    private_domains(lab, t, "root bus, FLR", &[root], 1)?;
    let root = lab.topology.device("root.b")?;
    private_domains(lab, t, "root bus, no reset", &[root], 0)?;

    let pf = lab.topology.device(lab::PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    private_domains(lab, t, "VF", &enabled.devices(), VFS)?;
    drop(enabled);
    lab.unreferenced(t)
}

/// All functions of a place share one domain; the reset comes at the last release.
fn shared_domain(lab: &Lab, t: &mut Test, place: &Place<'_>) -> Result<()> {
    let Place {
        what,
        devices,
        kind,
        at_last_release,
    } = place;
    // Asked before binding: looking into configuration space wakes a function.
    let idle = devices
        .iter()
        .map(|d| d.idle_power_state())
        .collect::<Result<Vec<_>>>()?;
    let binding = lab.bind(devices)?;
    let first = &devices[0];
    let name = if *kind == "slot" {
        first.slot()
    } else {
        first.bus()
    };
    lab.domain(
        t,
        first,
        &format!("{kind} {name} with {} members", devices.len()),
        |domain| {
            let all_in = devices.iter().all(|d| domain.member(d).is_some());
            if domain.kind == *kind
                && domain.name == name
                && all_in
                && domain.members.len() == devices.len()
            {
                Ok(())
            } else {
                Err("expected another domain")
            }
        },
    )?;

    let user = User::new()?;
    let mut mark = Mark::here()?;
    let (opened, calls) = lab.tracer.count(|| open_all(&user, devices))?;
    lab.resets(t, &calls, &format!("at the opens of the {what}"), NONE);
    let calls = release_all(lab, t, what, opened)?;
    lab.resets(
        t,
        &calls,
        &format!("at the last release of the {what}"),
        *at_last_release,
    );
    for (device, idle) in devices.iter().zip(idle) {
        lab.power(t, device, &format!("after the reset of the {what}"), idle)?;
    }
    lab.domain_idle(t, first, "released", 0, 1)?;
    if lab.driver.shows_domains() {
        let done = format!("{kind} reset of {kind} {name} done");
        let lines = mark.lines_with(&[&done])?;
        t.eq(format!("log lines with '{done}'"), 1, lines.len());
    }
    drop(user);
    binding.release()
}

/// Releases functions in their order; the calls are those of the last release, and there may be
/// no others.
fn release_all(lab: &Lab, t: &mut Test, what: &str, mut opened: Vec<Opened>) -> Result<Calls> {
    let last = opened.pop();
    let calls = lab.release(opened)?;
    lab.resets(
        t,
        &calls,
        &format!("before the last release of the {what}"),
        NONE,
    );
    lab.release(last)
}

/// Each function has a domain of its own, and no bus reset ever. `own_resets` says how many of
/// them have a function level reset.
fn private_domains(
    lab: &Lab,
    t: &mut Test,
    what: &str,
    devices: &[Device],
    own_resets: usize,
) -> Result<()> {
    // Asked before binding: looking into configuration space wakes a function.
    let idle = devices
        .iter()
        .map(|d| d.idle_power_state())
        .collect::<Result<Vec<_>>>()?;
    let binding = lab.bind(devices)?;
    for device in devices {
        lab.domain(t, device, &format!("private, alone ({what})"), |domain| {
            let own = domain.kind == "private" && domain.name == device.bdf().to_string();
            if own && domain.members.len() == 1 {
                Ok(())
            } else {
                Err("expected a private one")
            }
        })?;
    }
    let expected = Counts {
        flr: own_resets,
        ..NONE
    };
    let users: Result<Vec<User>> = devices.iter().map(|_| User::new()).collect();
    let users = users?;
    let (opened, calls) = lab.tracer.count(|| {
        let pairs = users.iter().zip(devices);
        pairs
            .map(|(user, device)| user.open(device))
            .collect::<Result<Vec<Opened>>>()
    })?;
    lab.resets(t, &calls, &format!("at the opens ({what})"), expected);
    let calls = lab.release(opened)?;
    lab.resets(t, &calls, &format!("at the releases ({what})"), expected);
    for (device, idle) in devices.iter().zip(idle) {
        lab.power(t, device, &format!("released ({what})"), idle)?;
        let dirty = usize::from(own_resets == 0);
        lab.domain_idle(t, device, "released", dirty, 0)?;
    }
    drop(users);
    binding.release()
}

fn open_all(user: &User, devices: &[Device]) -> Result<Vec<Opened>> {
    devices.iter().map(|device| user.open(device)).collect()
}
