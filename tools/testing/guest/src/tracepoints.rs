// SPDX-License-Identifier: GPL-2.0

//! The driver's own tracepoints, in a tracing instance of their own, so that nobody who counts
//! resets with the function tracer is in the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Doing;
use crate::Error;
use crate::Result;

const INSTANCE: &str = "/sys/kernel/tracing/instances/vfio_pci_rs";
const SYSTEM: &str = "vfio_pci_rs";

/// The tracepoints, enabled; dropping this removes the instance.
#[derive(Debug)]
pub struct Tracepoints(());

/// What a tracepoint told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in microseconds of the monotonic clock.
    pub time: u64,
    /// The tracepoint, without the prefix that all of them have.
    pub name: String,
    /// Its fields.
    fields: BTreeMap<String, String>,
}

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
        parse(&text)
    }
}

impl Drop for Tracepoints {
    fn drop(&mut self) {
        let ended = set(&format!("events/{SYSTEM}/enable"), "0")
            .and_then(|()| fs::remove_dir(INSTANCE).doing(format!("removing {INSTANCE}")));
        if let Err(e) = ended {
            eprintln!("the driver's tracepoints were not put back: {e}");
        }
    }
}

impl Event {
    /// A field; empty, if the tracepoint has none of this name.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The address of the function that it is about.
    pub fn function(&self) -> &str {
        self.field("function")
    }

    /// The event in short, without address and times: "claim open", "settle idle dirty=1".
    pub fn short(&self) -> String {
        match self.name.as_str() {
            "wait" | "claim" => format!("{} {}", self.name, self.field("for")),
            "settle" => format!(
                "settle {} dirty={}",
                self.field("claim"),
                self.field("dirty")
            ),
            "reset_end" => format!("reset_end error={}", self.field("error")),
            name => name.to_owned(),
        }
    }
}

/// Parses a `trace` file.
fn parse(text: &str) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for line in text.lines() {
        if line.contains("LOST EVENTS") {
            return Err(Error::new(format!("the trace has a gap: {line}")));
        }
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let event =
            parse_line(line).ok_or_else(|| Error::new(format!("the trace has a line '{line}'")))?;
        events.push(event);
    }
    Ok(events)
}

/// `TASK-PID [CPU] FLAGS SECONDS.MICROSECONDS: vfio_pci_rs_NAME: KEY=VALUE...`
fn parse_line(line: &str) -> Option<Event> {
    let (head, event) = line.split_once(": vfio_pci_rs_")?;
    let (seconds, micros) = head.rsplit_once(' ')?.1.split_once('.')?;
    let (name, fields) = event.split_once(": ")?;
    let fields = fields
        .split_whitespace()
        .map(|field| field.split_once('='))
        .map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Option<_>>()?;
    Some(Event {
        time: seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?,
        name: name.to_owned(),
        fields,
    })
}

/// The most functions that were in transit at the same time, between the claim for `purpose` and
/// the settlement.
pub fn most_in_transit(events: &[Event], purpose: &str) -> usize {
    let mut in_transit: Vec<&str> = Vec::new();
    let mut most = 0;
    for event in events {
        match event.name.as_str() {
            "claim" if event.field("for") == purpose => in_transit.push(event.function()),
            "settle" => in_transit.retain(|function| *function != event.function()),
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
# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
   scenarios-101     [000] .....    10.000001: vfio_pci_rs_claim: function=0000:01:00.0 scope=bus for=open waited_ns=1520
           <...>-102     [001] .....    10.000002: vfio_pci_rs_claim: function=0000:01:00.1 scope=bus for=open waited_ns=90
   scenarios-101     [000] .....    11.500003: vfio_pci_rs_settle: function=0000:01:00.0 scope=bus claim=open bound=0 dirty=0
           <...>-102     [001] .....    11.500004: vfio_pci_rs_settle: function=0000:01:00.1 scope=bus claim=open bound=0 dirty=0
";

    #[test]
    fn a_trace() {
        let events = parse(TRACE).expect("a trace");
        let short: Vec<_> = events.iter().map(Event::short).collect();
        assert_eq!(
            short,
            [
                "claim open",
                "claim open",
                "settle open dirty=0",
                "settle open dirty=0"
            ]
        );
        assert_eq!(events[2].time, 11_500_003);
        assert_eq!(events[1].function(), "0000:01:00.1");
        assert_eq!(events[0].field("waited_ns"), "1520");
        assert_eq!(most_in_transit(&events, "open"), 2);
        assert_eq!(most_in_transit(&events, "release"), 0);
    }

    #[test]
    fn something_else() {
        assert!(parse("CPU:1 [LOST 2 EVENTS]").is_err());
        assert!(parse("nonsense").is_err());
    }
}
