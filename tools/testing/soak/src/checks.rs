// SPDX-License-Identifier: GPL-2.0

//! The checks of a round. Those of a single operation are in `user.rs`.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use lab::trace::Event;
use lab::{debugfs, wait};
use nix::errno::Errno::{EAGAIN, EBUSY};

use crate::evidence;
use crate::operations::{rescan, World, POLICIES};
use crate::user::Function;

/// The limit for a machine without users to come to rest, with all retries of a reset.
const REST: Duration = Duration::from_secs(60);

/// What the kernel logs when something is wrong with it.
const SPLATS: [&str; 5] = ["BUG", "WARNING: ", "INFO: task", "Oops", "new suspected memory leaks"];

pub fn splats(lines: Vec<String>) -> impl Iterator<Item = String> {
    lines.into_iter().filter(|line| SPLATS.iter().any(|splat| line.contains(splat)))
}

/// Closes and binds all functions. Returns the faults once no reset is to come, and once each
/// has been opened, with nothing in the way of its reset.
pub fn rest(world: &World) -> Result<Vec<String>> {
    let is_absent = |function: &Function| !function.bdf.path().exists();
    world.functions.iter().for_each(|f| drop(f.open.lock().expect("no panic").take()));
    world.groups.iter().for_each(|group| _ = group.leave());
    if world.functions.iter().any(|f| f.is_vf() && is_absent(f)) {
        world.pf.write("sriov_numvfs", "0")?;
        world.pf.write("sriov_numvfs", "2")?;
    }
    for function in world.functions.iter().filter(|f| is_absent(f)) {
        rescan(function)?;
    }
    for function in &world.functions {
        if function.bdf.driver().as_deref() != Some(world.driver.name()) {
            world.bind(function)?;
        }
        function.bdf.write("power/control", "auto")?;
        for policy in POLICIES.iter().filter(|_| world.driver.shows_domains()) {
            function.bdf.write(&format!("vfio_reset/{policy}"), "default")?;
        }
    }
    let mut wrong = resting(world, false)?;
    thread::scope(|scope| {
        let groups = (0..world.groups.len()).map(|group| scope.spawn(move || open(world, group)));
        let groups: Vec<_> = groups.collect();
        groups.into_iter().for_each(|group| wrong.extend(group.join().expect("no panic")));
    });
    wrong.extend(resting(world, true)?);
    Ok(wrong)
}

/// Opens and closes the functions of a group, each of which must be empty.
fn open(world: &World, group: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for function in world.functions.iter().filter(|f| f.group == group) {
        let ours = world.driver.shows_domains();
        let open = || function.open(&world.groups[group], 0, ours).map(drop);
        let opened = wait::until(wait::SETTLE, open, |opened| {
            !matches!(opened.as_ref().err().and_then(lab::errno), Some(EAGAIN | EBUSY))
        });
        let fault =
            |error| format!("{} at rest: {error:#}\n{}", function.role, evidence::state(function));
        wrong.extend(opened.err().map(fault));
    }
    world.groups[group].leave();
    wrong
}

/// Waits until no function is in use and no reset is to come. Returns the faults then.
fn resting(world: &World, is_clean: bool) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let ours = world.driver.shows_domains();
    if ours {
        let is_idle = |domain: &debugfs::Domain| {
            domain.failed == 0 && domain.members.iter().all(|member| member.state == "idle")
        };
        let are_idle =
            |domains: &Result<Vec<_>>| domains.as_ref().is_ok_and(|all| all.iter().all(is_idle));
        let domains = wait::until(REST, debugfs::domains, are_idle);
        if !are_idle(&domains) {
            wrong.push(format!("the domains do not come to rest: {domains:?}"));
        }
    }
    for function in &world.functions {
        let read = |name| function.bdf.read(&format!("vfio_reset/{name}"));
        let (state, owed) = if ours { (read("state")?, read("owed")?) } else { Default::default() };
        let is_right = match &*state {
            "clean" | "unknown" => owed == "none",
            "dirty" => owed != "none" && !is_clean,
            _ => !ours,
        };
        let sleeps = function.is_vf() || function.bdf.wait_power_state("D3hot")? == "D3hot";
        if !is_right || !sleeps {
            let role = &function.role;
            let fault = format!("{role} is {state}, owed {owed}, sleeps: {sleeps}, at rest");
            wrong.push(format!("{fault}\n{}", evidence::state(function)));
        }
    }
    Ok(wrong)
}

/// Returns the resets of a domain during another one, or while a member was open or in transit.
pub fn resets_in_use(events: &[Event]) -> Vec<String> {
    let (mut used, mut resets) = (BTreeSet::new(), BTreeSet::new());
    let mut wrong = Vec::new();
    for event in events {
        let function = event.field("function");
        // No two domains that can be reset are on one bus.
        let bus = function.rsplit_once(':').map_or("", |(bus, _)| bus);
        match event.name.trim_start_matches("vfio_pci_rs_") {
            "claim" if event.field("purpose") != "hot-reset" => _ = used.insert((bus, function)),
            "settle" if event.field("open") == "0" => _ = used.remove(&(bus, function)),
            "reset_begin" => {
                let user = used.iter().find(|(of, _)| *of == bus);
                if user.is_some() && event.field("hot") == "0" || !resets.insert(bus) {
                    wrong.push(format!("{event:?} while {user:?} is in use, or another reset"));
                }
            }
            "reset_end" => _ = resets.remove(bus),
            _ => {}
        }
    }
    wrong
}

#[test]
fn resets_in_a_trace() {
    let count = |events: &[&str]| {
        let line = |event: &&str| {
            let (name, fields) = event.split_once(' ').expect("a name");
            format!(" a-1 [0] . 1.0: vfio_pci_rs_{name}: function=0000:01:00.{fields}\n")
        };
        resets_in_use(&lab::trace::parse(&events.iter().map(line).collect::<String>()).unwrap())
            .len()
    };
    let (open, close) = ("claim 0 purpose=open", "settle 0 open=0");
    let (begin, end) = ("reset_begin 1 hot=0", "reset_end 1");
    assert_eq!(count(&[open, "settle 0 open=1", "claim 0 purpose=close", close, begin, end]), 0);
    assert_eq!(count(&[open, begin, end]), 1);
    assert_eq!(count(&[open, "settle 0 open=1", "reset_begin 1 hot=1", end]), 0);
    assert_eq!(count(&[begin, begin]), 1);
    assert_eq!(count(&[begin, end, begin]), 0);
}
