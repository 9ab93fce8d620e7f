// SPDX-License-Identifier: GPL-2.0

//! The driver's tracepoints, which also show that it opens and closes functions of one bus in
//! parallel.

use std::time::Duration;

use anyhow::Result;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::sriov::VirtualFunctions;
use lab::topology::Device;
use lab::trace::{Event, Tracepoints};
use lab::vfio::User;
use lab::wait;

use super::one_line;
use crate::together::{close, open};

const PREFIX: &str = "vfio_pci_rs_";
const VFS: usize = 7;

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    let tracepoints = Tracepoints::enable()?;
    in_sequence(lab, t, &tracepoints)?;
    let pair = lab.topology.family("pair", 2)?;
    in_parallel(lab, t, &tracepoints, "functions of one bus", &pair)?;
    let pf = lab.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    in_parallel(lab, t, &tracepoints, "VFs", &enabled.devices())?;
    drop((tracepoints, enabled));
    serialized(lab, t, &pair)
}

/// The parameter `serialize` lists devices: functions of a bus are opened and closed one at a time.
fn serialized(lab: &Lab, t: &mut Test<'_>, pair: &[Device]) -> Result<()> {
    // In one IOMMU group, so that only iommufd opens them in parallel.
    let flr = lab.topology.family("flr", 6)?;
    let [(vendor, device), (other, more)] = [pair[0].id()?, flr[0].id()?];
    let ids = format!("serialize={vendor}:{device},{other}:{more}");
    let mut mark = Mark::here()?;
    let invalid = lab.driver.load(&[&format!("{ids},{vendor}")]);
    t.check("an invalid id is refused", invalid.is_err(), || "the module is loaded");
    one_line(t, &mut mark, &[&format!("serialize has the invalid id \"{vendor}\"")])?;

    lab.driver.load(&[&ids, "background_reset=1"])?;
    let tracepoints = Tracepoints::enable()?;
    let (functions, user) = match User::with_iommufd() {
        Ok(user) => (&*flr, user),
        Err(_) => (pair, User::new()?),
    };
    let binding = lab.bind(functions)?;
    let events = tracepoints.events(|| close(open(&user, functions)?).map(drop))?;
    for purpose in ["open", "close"] {
        let what = format!("the most functions in transit if serialized ({purpose})");
        t.eq(what, 1, most_in_transit(&events, purpose));
        let waits = events.iter().filter(|event| event.field("purpose") == purpose);
        let waits = waits.map(|event| event.field("waited_ns").parse().unwrap_or(0));
        let longest = Duration::from_nanos(waits.max().unwrap_or(0));
        let what = format!("one waits for the other's reset ({purpose})");
        t.check(what, longest >= wait::RESET / 2, || format!("for {longest:?} at most"));
    }
    drop((user, tracepoints));
    binding.release()
}

/// Two functions that only a reset of their bus can clean.
fn in_sequence(lab: &Lab, t: &mut Test<'_>, tracepoints: &Tracepoints) -> Result<()> {
    let [a, b, c] = lab.topology.devices(["bus.a", "bus.b", "bus.c"])?;
    let binding = lab.bind([&a, &b, &c])?;
    let user = User::new()?;
    let events = tracepoints.events(|| {
        let (first, second) = (user.open(&a)?, user.open(&b)?);
        drop(first);
        drop(second);
        Ok(())
    })?;

    let shown: Vec<_> = events.iter().map(short).collect();
    let (a, b) = (a.bdf(), b.bdf());
    let expected = [
        format!("{a} wait open"),
        format!("{a} claim open"),
        format!("{a} settle open=1 dirty=0"),
        format!("{b} wait open"),
        format!("{b} claim open"),
        format!("{b} settle open=1 dirty=0"),
        format!("{a} wait close"),
        format!("{a} claim close"),
        format!("{a} settle open=0 dirty=1"),
        format!("{b} wait close"),
        format!("{b} claim close"),
        format!("{b} settle open=0 dirty=1"),
        format!("{b} reset_begin"),
        format!("{b} reset_end error=0"),
    ];
    let what = "events of two functions of one bus";
    t.eq(what, expected.join("\n"), shown.join("\n"));
    reset_duration(t, &events);
    binding.release()
}

/// The duration of a reset is the time between its two events.
fn reset_duration(t: &mut Test<'_>, events: &[Event]) {
    let [.., begin, end] = events else {
        return;
    };
    let between = end.time - begin.time;
    let duration = Duration::from_nanos(end.field("duration_ns").parse().unwrap_or(0));
    // The tracer rounds times to microseconds.
    let fits = !duration.is_zero() && duration <= between + Duration::from_micros(1);
    let right = fits && end.field("functions") == "3";
    t.check("the duration of the reset", right, || {
        format!("{duration:?}, {between:?} between the events: {end:?}")
    });
}

/// Each function is in its own IOMMU group, so no lock of vfio serialises them.
fn in_parallel(
    lab: &Lab,
    t: &mut Test<'_>,
    tracepoints: &Tracepoints,
    what: &str,
    devices: &[Device],
) -> Result<()> {
    let binding = lab.bind(devices)?;
    let user = User::new()?;
    let purposes = ["open", "close"];
    let mut most = [0; 2];
    // Threads that start together may still not meet: a function reset takes only 100 ms.
    for _ in 0..lab.rounds.max(3) {
        let events = tracepoints.events(|| close(open(&user, devices)?).map(drop))?;
        for (most, purpose) in most.iter_mut().zip(purposes) {
            *most = most_in_transit(&events, purpose).max(*most);
        }
        if most.iter().all(|most| *most >= 2) {
            break;
        }
    }
    for (most, purpose) in most.into_iter().zip(purposes) {
        let all = devices.len();
        t.note(format!("{what}: at most {most} of {all} at once ({purpose})"));
        let what = format!("{what} do not wait for each other's resets ({purpose})");
        t.check(what, most >= 2, || format!("never more than {most} in transit"));
    }
    drop(user);
    binding.release()
}

/// Returns an event without its times: "0000:01:00.0 claim open".
fn short(event: &Event) -> String {
    let name = event.name.trim_start_matches(PREFIX);
    let more = match name {
        "wait" | "claim" => format!(" {}", event.field("purpose")),
        "settle" => {
            let field = |name| event.field(name);
            format!(" open={} dirty={}", field("open"), field("dirty"))
        }
        "reset_end" => format!(" error={}", event.field("error")),
        _ => String::new(),
    };
    format!("{} {name}{more}", event.field("function"))
}

/// Returns the most functions that were at once between the claim for `purpose` and its end.
fn most_in_transit(events: &[Event], purpose: &str) -> usize {
    let mut in_transit: Vec<&str> = Vec::new();
    let mut most = 0;
    for event in events {
        let function = event.field("function");
        match event.name.trim_start_matches(PREFIX) {
            "claim" if event.field("purpose") == purpose => in_transit.push(function),
            "settle" => in_transit.retain(|other| *other != function),
            _ => {}
        }
        most = most.max(in_transit.len());
    }
    most
}
