// SPDX-License-Identifier: GPL-2.0

//! Samples of times and resets.

use std::collections::BTreeMap;
use std::fs;
use std::process;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use lab::resets::Counts;
use lab::topology::Device;
use lab::trace::Tracer;
use lab::vfio::{Opened, User};
use lab::wait;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::together::{close, open, timed, Times};

/// The result of one measurement; see the module [`crate::bench`] for its numbers.
pub type Sample = BTreeMap<&'static str, u64>;

/// Processor times of processes, by their IDs.
type Used = BTreeMap<u32, Duration>;

/// How functions are opened and closed.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Together,
    InTurn,
}

impl Order {
    fn open<'a>(self, user: &'a User, functions: &'a [Device]) -> Result<Vec<(Opened, Times)>> {
        match self {
            Order::Together => open(user, functions),
            Order::InTurn => {
                let open = |function: &'a Device| timed(|| user.open(function));
                functions.iter().map(open).collect()
            }
        }
    }

    fn close(self, opened: Vec<(Opened, Times)>) -> Result<Vec<Times>> {
        match self {
            Order::Together => close(opened),
            Order::InTurn => {
                let close = |(opened, _)| {
                    let closed = timed(|| {
                        drop(opened);
                        Ok(())
                    });
                    closed.map(|((), times)| times)
                };
                opened.into_iter().map(close).collect()
            }
        }
    }
}

pub fn nanoseconds(time: Duration) -> u64 {
    // CAST: 64 bits are centuries.
    time.as_nanos() as u64
}

/// Returns the times of threads.
pub fn times(done: &[Times]) -> Sample {
    let start = done.iter().map(|done| done.start).min().unwrap_or_default();
    let end = done.iter().map(|done| done.end).max().unwrap_or_default();
    let longest = done.iter().map(Times::length).max().unwrap_or_default();
    let times = [
        ("wall_ns", end.saturating_sub(start)),
        ("longest_ns", longest),
        ("processor_ns", done.iter().map(|done| done.processor).sum()),
    ];
    times.map(|(name, time)| (name, nanoseconds(time))).into()
}

/// Returns the numbers of resets, given those that were due.
pub fn resets(made: Counts, due: Counts) -> Sample {
    let (bus, bus_due) = (made.bus + made.slot, due.bus + due.slot);
    let lost = due.flr.saturating_sub(made.flr) + bus_due.saturating_sub(bus);
    let numbers = [
        ("function_resets", made.flr),
        ("bus_resets", bus),
        ("due", due.flr + bus_due),
        ("lost", lost),
    ];
    // CAST: The machine has 64 bits.
    numbers.map(|(name, number)| (name, number as u64)).into()
}

/// Opens all `functions` when they are asleep, then closes all. Returns a sample of each, given the
/// resets that are due. Those that follow a close in the background belong to it.
pub fn open_and_close(
    tracer: &Tracer,
    user: &User,
    functions: &[Device],
    due: [Counts; 2],
    order: Order,
) -> Result<[Sample; 2]> {
    functions.iter().try_for_each(wait_rested)?;
    let before = others()?;
    let (opened, calls) = tracer.count(|| order.open(user, functions))?;
    let mut by_others = between(&before, &others()?);
    let threads: Vec<Times> = opened.iter().map(|(_, times)| *times).collect();
    let mut at_open = times(&threads);
    at_open.insert("machine_ns", at_open["processor_ns"] + by_others);
    at_open.extend(resets(calls.counts(), due[0]));
    let before = others()?;
    let (closed, calls) = tracer.count(|| {
        let closed = order.close(opened)?;
        functions.iter().try_for_each(wait_rested)?;
        Ok(closed)
    })?;
    by_others = between(&before, &others()?);
    let mut at_close = times(&closed);
    at_close.insert("machine_ns", at_close["processor_ns"] + by_others);
    at_close.extend(resets(calls.counts(), due[1]));
    Ok([at_open, at_close])
}

/// Returns the processor time that processes used between two calls of [`others`]. One that has
/// ended does not count.
fn between(before: &Used, after: &Used) -> u64 {
    let earlier = |pid| before.get(pid).copied().unwrap_or_default();
    nanoseconds(after.iter().map(|(pid, time)| time.saturating_sub(earlier(pid))).sum())
}

/// Returns the processor time of each other process, and so of work.
fn others() -> Result<Used> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let pid: Option<u32> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|&pid| pid != process::id()) else {
            continue;
        };
        // CAST: Linux has no larger ones. A process can have ended.
        if let Ok(time) = clock_getcpuclockid(Pid::from_raw(pid as i32)).and_then(|c| c.now()) {
            times.insert(pid, time.into());
        }
    }
    Ok(times)
}

/// Waits until an unused function is reset, if the driver says that it will be, and asleep.
pub fn wait_rested(function: &Device) -> Result<()> {
    let state = || function.read("vfio_reset/state").unwrap_or_default();
    let state = wait::until(wait::SETTLE, state, |state| state != "cleaning");
    ensure!(state != "cleaning", "{function} is still being reset");
    wait_asleep(function)
}

/// Waits until an unused function is asleep.
pub fn wait_asleep(function: &Device) -> Result<()> {
    let status = function.comes_to("power/runtime_status", "suspended")?;
    ensure!(status == "suspended", "{function} is unused and '{status}'");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_and_longest() {
        let done = |start, end| Times {
            start: Duration::from_nanos(start),
            end: Duration::from_nanos(end),
            processor: Duration::from_nanos(3),
        };
        let sample = times(&[done(5, 30), done(2, 20), done(4, 31)]);
        assert_eq!((sample["wall_ns"], sample["longest_ns"]), (29, 27));
        assert_eq!(sample["processor_ns"], 9);
    }

    #[test]
    fn processes_come_and_go() {
        let times =
            |pairs: [(u32, u64); 2]| pairs.map(|(p, t)| (p, Duration::from_nanos(t))).into();
        assert_eq!(between(&times([(1, 50), (2, 7)]), &times([(2, 9), (3, 1)])), 3);
    }

    #[test]
    fn lost_resets() {
        let mut made = Counts::flr(1);
        made.bus = 3;
        let sample = resets(made, Counts::flr(7));
        let expected = [("function_resets", 1), ("bus_resets", 3), ("due", 7), ("lost", 6)];
        assert_eq!(sample, expected.into());
    }
}
