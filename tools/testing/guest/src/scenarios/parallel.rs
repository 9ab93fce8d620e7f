// SPDX-License-Identifier: GPL-2.0

//! Scenario 10: functions that have a reset of their own, opened and released together by as many
//! threads. No function may be given back without its reset because a sibling was busy.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::sync::Barrier;
use std::thread;

use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sriov::VirtualFunctions;
use crate::topology::Device;
use crate::trace::Counts;
use crate::vfio::User;
use crate::Error;
use crate::Result;

const VFS: usize = 7;
const FUNCTIONS: usize = 8;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    lab.driver.load(&[])?;
    let functions = lab.topology.family("flr", FUNCTIONS)?;
    rounds(
        lab,
        t,
        "functions of one bus and one IOMMU group",
        &functions,
    )?;
    // The group's lock keeps those from being opened or released at the same time; functions
    // with a group each are, and share what is above them.
    let pair = lab.topology.family("pair", 2)?;
    rounds(lab, t, "functions of one bus with a group each", &pair)?;

    let pf = lab.topology.device(lab::PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    rounds(lab, t, "VFs", &enabled.devices())?;
    drop(enabled);
    lab.unreferenced(t)
}

fn rounds(lab: &Lab, t: &mut Test, what: &str, devices: &[Device]) -> Result<()> {
    // Asked before binding: looking into configuration space wakes a function.
    let idle = devices
        .iter()
        .map(|d| d.idle_power_state())
        .collect::<Result<Vec<_>>>()?;
    let binding = lab.bind(devices)?;
    let mut at_open = Vec::new();
    let mut at_release = Vec::new();
    for _ in 0..lab.rounds {
        let (open, release) = round(lab, devices)?;
        at_open.push(open);
        at_release.push(release);
    }
    let flr = |counts: &[Counts]| counts.iter().map(|c| c.flr).sum::<usize>();
    let shared = |counts: &[Counts]| counts.iter().map(|c| c.bus + c.slot).sum::<usize>();
    let expected = lab.rounds * devices.len();
    let by_round: Vec<String> = at_release.iter().map(|c| c.flr.to_string()).collect();
    t.note(format!(
        "{what}, {} rounds of {}: {} function resets at open, {} at release ({} by round)",
        lab.rounds,
        devices.len(),
        flr(&at_open),
        flr(&at_release),
        by_round.join(" ")
    ));
    t.note(format!(
        "{what}: {} bus or slot resets at open, {} at release",
        shared(&at_open),
        shared(&at_release)
    ));
    t.eq(
        format!("{what}: as many function resets as opens"),
        expected,
        flr(&at_open),
    );
    if lab.driver.shows_domains() {
        // Drivers that let a sibling's release keep the bridge locked lose some of these.
        t.eq(
            format!("{what}: as many function resets as releases"),
            expected,
            flr(&at_release),
        );
        t.eq(
            format!("{what}: no bus or slot reset"),
            0,
            shared(&at_open) + shared(&at_release),
        );
    }
    for (device, idle) in devices.iter().zip(idle) {
        lab.power(t, device, "afterwards", idle)?;
        lab.domain_idle(t, device, "afterwards", 0, 0)?;
    }
    binding.release()
}

/// One thread a function: all open together, then all release together. Returns the resets of
/// the opens and those of the releases.
pub(super) fn round(lab: &Lab, devices: &[Device]) -> Result<(Counts, Counts)> {
    let users = users(devices)?;
    let barrier = Barrier::new(devices.len() + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = users
            .iter()
            .zip(devices)
            .map(|(user, device)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    // Nothing may end the thread between the barriers: the others would wait.
                    let opened = catch_unwind(AssertUnwindSafe(|| user.open(device)));
                    barrier.wait();
                    // Between these two, the resets of the opens are counted.
                    barrier.wait();
                    let opened = opened.map_err(|_| Error::new("opening a function panicked"));
                    opened.and_then(|opened| opened).map(drop)
                })
            })
            .collect();
        let mut counted = lab.tracer.mark();
        barrier.wait();
        barrier.wait();
        let at_open = lab.tracer.calls();
        counted = counted.and_then(|()| lab.tracer.mark());
        barrier.wait();
        for thread in threads {
            let result = thread
                .join()
                .map_err(|_| Error::new("a thread of the round panicked"))?;
            result?;
        }
        counted?;
        Ok((at_open?.counts(), lab.tracer.calls()?.counts()))
    })
}

/// A group can be open only once, so the functions of one group have one user; functions with a
/// group of their own have a container of their own as well.
fn users(devices: &[Device]) -> Result<Vec<User>> {
    let mut by_group: BTreeMap<String, User> = BTreeMap::new();
    let mut users = Vec::new();
    for device in devices {
        let group = device.iommu_group()?;
        let user = match by_group.get(&group) {
            Some(user) => user.clone(),
            None => User::new()?,
        };
        by_group.insert(group, user.clone());
        users.push(user);
    }
    Ok(users)
}
