// SPDX-License-Identifier: GPL-2.0

//! Exact counts of PCI resets from the kernel's function tracer, and the driver's tracepoints.
//!
//! The tracer has these functions:
//!
//! - `pcie_flr`: a function level reset;
//! - `pcibios_reset_secondary_bus`: a reset of everything below a bridge;
//! - `pci_bridge_secondary_bus_reset`: calls the former. Compilers inline it in places;
//! - `pciehp_reset_slot`: calls the latter to reset a slot. The kernel also calls it to learn
//!   whether a slot can be reset, so only a secondary bus reset that it called is a slot reset;
//! - `pci_reset_bus`: begins a reset of a slot or bus, and is not counted.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::resets::Calls;

const TRACEFS: &str = "/sys/kernel/tracing";
const INSTANCE: &str = "/sys/kernel/tracing/instances/vfio_pci_rs";

pub(crate) const FLR: &str = "pcie_flr";
pub(crate) const BUS_RESET: &str = "pcibios_reset_secondary_bus";
pub(crate) const BRIDGE_RESET: &str = "pci_bridge_secondary_bus_reset";
pub(crate) const SLOT_RESET: &str = "pciehp_reset_slot";
pub(crate) const BEGIN_RESET: &str = "pci_reset_bus";

/// The running function tracer. Dropping it stops it.
#[derive(Debug)]
pub struct Tracer(());

/// The driver's tracepoints, in a tracing instance that the function tracer does not share.
/// Dropping this removes the instance.
#[derive(Debug)]
pub struct Tracepoints(());

/// A function call or a tracepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Name and thread ID.
    pub task: String,
    /// By the monotonic clock.
    pub time: Duration,
    /// The function or the tracepoint.
    pub name: String,
    /// The function that called it; empty for a tracepoint.
    pub caller: String,
    /// The call chain, innermost first, if it is traced.
    pub chain: Vec<String>,
    /// The fields of a tracepoint.
    fields: BTreeMap<String, String>,
}

impl Tracer {
    /// Starts to trace resets, with or without their call chains, which take time.
    pub fn start(chains: bool) -> Result<Self> {
        set(TRACEFS, "tracing_on", "0")?;
        set(TRACEFS, "current_tracer", "nop")?;
        // The filter first: the stack of every function call would stall the machine.
        let resets = [FLR, BUS_RESET, BRIDGE_RESET, SLOT_RESET, BEGIN_RESET].join(" ");
        set(TRACEFS, "set_ftrace_filter", &resets)?;
        set(TRACEFS, "trace_clock", "mono")?;
        let tracer = Tracer(());
        set(TRACEFS, "current_tracer", "function")?;
        let chains = u8::from(chains).to_string();
        set(TRACEFS, "options/func_stack_trace", &chains)?;
        set(TRACEFS, "trace", "")?;
        set(TRACEFS, "tracing_on", "1")?;
        Ok(tracer)
    }

    /// Forgets the calls so far.
    pub fn mark(&self) -> Result<()> {
        set(TRACEFS, "trace", "")
    }

    /// Returns the calls since the last mark.
    pub fn calls(&self) -> Result<Calls> {
        read(TRACEFS).map(Calls)
    }

    /// Returns the value of `work`, and the calls while it ran.
    pub fn count<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Calls)> {
        self.mark()?;
        let value = work()?;
        Ok((value, self.calls()?))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The filter last, for the same reason.
        for (name, value) in [
            ("tracing_on", "0"),
            ("options/func_stack_trace", "0"),
            ("current_tracer", "nop"),
            ("set_ftrace_filter", " "),
            ("trace_clock", "local"),
        ] {
            if let Err(e) = set(TRACEFS, name, value) {
                eprintln!("the function tracer was not put back: {e:#}");
            }
        }
    }
}

impl Tracepoints {
    /// Enables the tracepoints of the driver, which must be loaded, while a [`Tracer`] exists.
    pub fn enable() -> Result<Self> {
        fs::create_dir(INSTANCE).context(INSTANCE)?;
        let tracepoints = Tracepoints(());
        set(INSTANCE, "trace_clock", "mono")?;
        set(INSTANCE, "events/vfio_pci_rs/enable", "1")?;
        Ok(tracepoints)
    }

    /// Returns the events while `work` ran.
    pub fn events(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Event>> {
        set(INSTANCE, "trace", "")?;
        work()?;
        read(INSTANCE)
    }
}

impl Drop for Tracepoints {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir(INSTANCE) {
            eprintln!("{INSTANCE} was not removed: {e}");
        }
    }
}

impl Event {
    /// Returns a field of a tracepoint, or an empty text.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub(crate) fn chain_has(&self, function: &str) -> bool {
        self.chain.iter().any(|f| f == function)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} {}: {}", self.time.as_secs_f64(), self.task, self.name)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

fn read(directory: &str) -> Result<Vec<Event>> {
    let path = Path::new(directory).join("trace");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    parse(&text)
}

fn set(directory: &str, name: &str, value: &str) -> Result<()> {
    // Truncation by open(2) clears a trace, and without it a write adds to a filter.
    let path = Path::new(directory).join(name);
    fs::write(&path, value).with_context(|| format!("writing '{value}' to {}", path.display()))
}

/// Parses a `trace` file, whose lines are in the order of time. Fails if an event was lost.
pub fn parse(text: &str) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    // The event that a stack belongs to: the last one of its task, as events of two CPUs mix.
    let mut current = None;
    for line in text.lines() {
        let count = line.strip_prefix("# entries-in-buffer/entries-written: ");
        if let Some((kept, written)) = count.and_then(|count| count.split_once('/')) {
            let complete = written.split(' ').next() == Some(kept);
            ensure!(complete, "the trace buffer overran: {line}");
        }
        // "CPU:0 [LOST 3 EVENTS]"
        ensure!(!line.ends_with("EVENTS]"), "events are lost: {line}");
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if let Some(symbol) = line.strip_prefix(" => ") {
            if let Some(event) = current.and_then(|i: usize| events.get_mut(i)) {
                let function = symbol.split([' ', '+']).next().unwrap_or(symbol);
                event.chain.push(function.to_owned());
            }
            continue;
        }
        let event = event(line).with_context(|| format!("a trace has the line '{line}'"))?;
        if event.name == "<stack trace>" {
            let same = |other: &Event| other.task == event.task && other.chain.is_empty();
            current = events.iter().rposition(same);
        } else {
            events.push(event);
            current = None;
        }
    }
    Ok(events)
}

/// Parses `NAME-THREAD [CPU] FLAGS SECONDS: WHAT`. The name may contain anything.
fn event(line: &str) -> Option<Event> {
    let (head, what) = line.split_once(": ")?;
    let (head, time) = head.rsplit_once(' ')?;
    let (task, _) = head.rsplit_once(" [")?;
    let (_, thread) = task.rsplit_once('-')?;
    thread.trim().parse::<u32>().ok()?;
    let (name, caller) = what.split_once(" <-").unwrap_or((what, ""));
    let (name, fields) = name.split_once(':').unwrap_or((name, ""));
    let fields = fields.split_whitespace().filter_map(|f| f.split_once('='));
    Some(Event {
        task: task.trim().to_owned(),
        time: seconds(time)?,
        name: name.trim().to_owned(),
        caller: caller.trim().to_owned(),
        chain: Vec::new(),
        fields: fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    })
}

/// Parses seconds with a fraction. They are exact if nanoseconds are.
pub fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_and_invalid_traces() {
        assert_eq!(parse("# nothing\n\n").expect("no event"), []);
        for text in [
            "# entries-in-buffer/entries-written: 7/9   #P:2\n",
            "CPU:0 [LOST 3 EVENTS]\n",
            "CPU:1 [LOST EVENTS]\n",
            "pcie_flr <-pcie_reset_flr\n",
            " bench-x [000] ..... 1.0: pcie_flr <-pcie_reset_flr\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn exact_seconds() {
        let time = Duration::new(41, 130_003);
        assert_eq!(seconds("41.000130003"), Some(time));
        assert_eq!(seconds("1.x"), None);
    }
}
