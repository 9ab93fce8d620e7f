// SPDX-License-Identifier: GPL-2.0

//! Scenario 20: what the driver's tracepoints tell, and by them, that functions of one bus are
//! opened and released side by side.

use std::time::Duration;

use crate::events::Event;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::scenarios::parallel;
use crate::sriov::VirtualFunctions;
use crate::topology::Device;
use crate::tracepoints::most_in_transit;
use crate::tracepoints::short;
use crate::tracepoints::Tracepoints;
use crate::vfio::User;
use crate::Result;

const VFS: usize = 7;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    if !lab.driver.shows_domains() {
        t.skip("what the tracepoints tell", "this driver has none");
        return Ok(());
    }
    lab.driver.load(&[])?;
    let tracepoints = Tracepoints::enable()?;
    one_after_the_other(lab, t, &tracepoints)?;
    side_by_side(lab, t, &tracepoints)
}

/// Two functions that only a reset of their bus can clean.
fn one_after_the_other(lab: &Lab, t: &mut Test, tracepoints: &Tracepoints) -> Result<()> {
    let (a, b) = (lab.topology.device("bus.a")?, lab.topology.device("bus.b")?);
    let c = lab.topology.device("bus.c")?;
    let binding = lab.bind([&a, &b, &c])?;
    let user = User::new()?;
    tracepoints.mark()?;
    let (first, second) = (user.open(&a)?, user.open(&b)?);
    drop(first);
    drop(second);
    let events = tracepoints.events()?;

    let told: Vec<_> = events.iter().map(short).collect();
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
    t.eq(
        "what is told of two functions of one bus",
        expected.join("\n"),
        told.join("\n"),
    );
    reset_takes_its_time(t, &events);
    binding.release()
}

/// The duration that is told is the time between the two events.
fn reset_takes_its_time(t: &mut Test, events: &[Event]) {
    let [.., begin, end] = events else {
        return;
    };
    let between = end.time - begin.time;
    let told = Duration::from_nanos(end.field("duration_ns").parse().unwrap_or(0));
    t.check(
        "the duration of the reset",
        // The tracer rounds times to microseconds.
        !told.is_zero()
            && told <= between + Duration::from_micros(1)
            && end.field("functions") == "3",
        || format!("{told:?} told, {between:?} between the events: {end:?}"),
    );
}

/// Functions of one bus, each in an IOMMU group of its own: no lock of vfio's keeps them apart.
fn side_by_side(lab: &Lab, t: &mut Test, tracepoints: &Tracepoints) -> Result<()> {
    let pair = lab.topology.family("pair", 2)?;
    together(lab, t, tracepoints, "functions of one bus", &pair)?;
    let pf = lab.topology.device(lab::PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    together(lab, t, tracepoints, "VFs", &enabled.devices())
}

fn together(
    lab: &Lab,
    t: &mut Test,
    tracepoints: &Tracepoints,
    what: &str,
    devices: &[Device],
) -> Result<()> {
    let binding = lab.bind(devices)?;
    let purposes = ["open", "close"];
    let mut most = [0; 2];
    // Threads that begin together need not get far enough together: a function reset takes 100 ms.
    for _ in 0..lab.rounds.max(3) {
        tracepoints.mark()?;
        parallel::round(lab, devices)?;
        let events = tracepoints.events()?;
        for (most, purpose) in most.iter_mut().zip(purposes) {
            *most = most_in_transit(&events, purpose).max(*most);
        }
        if most.iter().all(|most| *most >= 2) {
            break;
        }
    }
    for (most, purpose) in most.into_iter().zip(purposes) {
        t.note(format!(
            "{what}: at most {most} of {} in transit at once ({purpose})",
            devices.len()
        ));
        t.check(
            format!("{what} do not wait for each other's resets ({purpose})"),
            most >= 2,
            || format!("never more than {most} in transit"),
        );
    }
    binding.release()
}
