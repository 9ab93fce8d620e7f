// SPDX-License-Identifier: GPL-2.0

//! The driver's own tracepoints, in a tracing instance of their own, so that nobody who counts
//! resets with the function tracer is in the way.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Doing;
use crate::events;
use crate::events::Event;
use crate::trace::complete;
use crate::Result;

const INSTANCE: &str = "/sys/kernel/tracing/instances/vfio_pci_rs";

/// What they are below, in `events`.
pub const SYSTEM: &str = "vfio_pci_rs";

/// What the names of all of them begin with.
const PREFIX: &str = "vfio_pci_rs_";

/// The tracepoints, enabled; dropping this removes the instance.
#[derive(Debug)]
pub struct Tracepoints(());

impl Tracepoints {
    /// Enables the tracepoints of the driver, which has to be loaded. (Tracefs is mounted by
    /// [`crate::trace::Tracer`].)
    pub fn enable() -> Result<Self> {
        fs::create_dir(INSTANCE).doing(format!("creating {INSTANCE}"))?;
        let tracepoints = Tracepoints(());
        set("trace_clock", "mono")?;
        set(&format!("events/{SYSTEM}/enable"), "1")?;
        Ok(tracepoints)
    }

    /// Forgets what has been told.
    pub fn mark(&self) -> Result<()> {
        fs::File::create(file("trace"))
            .map(drop)
            .doing("truncating the trace")
    }

    /// What has been told since the last mark, in order.
    pub fn events(&self) -> Result<Vec<Event>> {
        let path = file("trace");
        let text = fs::read_to_string(&path).doing(format!("reading {}", path.display()))?;
        complete(&text)?;
        events::parse(&text)
    }
}

impl Drop for Tracepoints {
    fn drop(&mut self) {
        // Its events are disabled with it.
        let removed = fs::remove_dir(INSTANCE).doing(format!("removing {INSTANCE}"));
        if let Err(e) = removed {
            eprintln!("the driver's tracepoints were not put back: {e}");
        }
    }
}

/// A line for what one of the driver's tracepoints has told, without times: "0000:01:00.0 claim
/// open", "0000:01:00.0 settle open=0 dirty=1".
pub fn short(event: &Event) -> String {
    let name = event.point().trim_start_matches(PREFIX);
    let more = match name {
        "wait" | "claim" => format!(" {}", event.field("purpose")),
        "settle" => format!(
            " open={} dirty={}",
            event.field("open"),
            event.field("dirty")
        ),
        "reset_end" => format!(" error={}", event.field("error")),
        _ => String::new(),
    };
    format!("{} {name}{more}", event.field("function"))
}

/// The most functions that were in transit at the same time, between the claim for `purpose` and
/// the settlement.
pub fn most_in_transit(events: &[Event], purpose: &str) -> usize {
    let mut in_transit: Vec<&str> = Vec::new();
    let mut most = 0;
    for event in events {
        let function = event.field("function");
        match event.point().trim_start_matches(PREFIX) {
            "claim" if event.field("purpose") == purpose => in_transit.push(function),
            "settle" => in_transit.retain(|other| *other != function),
            _ => {}
        }
        most = most.max(in_transit.len());
    }
    most
}

fn file(name: &str) -> PathBuf {
    Path::new(INSTANCE).join(name)
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = file(name);
    fs::write(&path, value).doing(format!("writing '{value}' to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
   scenarios-101     [000] .....    10.000001: vfio_pci_rs_claim: function=0000:01:00.0 scope=bus purpose=open waited_ns=1520
           <...>-102     [001] .....    10.000002: vfio_pci_rs_claim: function=0000:01:00.1 scope=bus purpose=open waited_ns=90
   scenarios-101     [000] .....    11.500003: vfio_pci_rs_settle: function=0000:01:00.0 scope=bus open=1 bound=0 dirty=0
           <...>-102     [001] .....    11.500004: vfio_pci_rs_reset_end: function=0000:01:00.1 scope=bus hot=0 functions=2 error=0 duration_ns=1
";

    #[test]
    fn a_trace() {
        let events = events::parse(TRACE).expect("a trace");
        let told: Vec<_> = events.iter().map(short).collect();
        assert_eq!(
            told,
            [
                "0000:01:00.0 claim open",
                "0000:01:00.1 claim open",
                "0000:01:00.0 settle open=1 dirty=0",
                "0000:01:00.1 reset_end error=0",
            ]
        );
        assert_eq!(most_in_transit(&events, "open"), 2);
        assert_eq!(most_in_transit(&events[2..], "open"), 0);
        assert_eq!(most_in_transit(&events, "release"), 0);
    }
}
