// SPDX-License-Identifier: GPL-2.0

//! The last close on a bus of unused functions, which wakes them for the bus reset.

use anyhow::{Context, Result};
use lab::machine::Bound;
use lab::resets::Counts;
use lab::trace::{Tracepoints, Tracer};
use lab::vfio::User;

use super::measure::{nanoseconds, resets, times, wait_asleep, Sample};
use super::{Bench, Competitor, AS_C, C};
use crate::together::{close, open};

/// The driver's tracepoint before it wakes the functions.
const BEGIN: &str = "vfio_pci_rs_reset_begin";

/// The numbers of functions that are asleep, on a bus each.
const ASLEEP: [usize; 3] = [1, 8, 64];

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let case = |n| format!("wake_{n}");
    bench.in_turns(&[C, AS_C], |bench, competitor| {
        let samples = ASLEEP.map(|n| Ok((case(n), close_last(bench, competitor, n)?)));
        samples.into_iter().collect()
    })
}

/// Closes the only function of a bus that is open, while `asleep` others are in D3hot.
fn close_last(bench: &Bench, competitor: &Competitor, asleep: usize) -> Result<Sample> {
    let mut functions = bench.topology.family(&format!("wake.{asleep}"), 1)?;
    for device in 0..asleep / 8 {
        functions.extend(bench.family(&format!("wake.{asleep}.{device}"), 8)?);
    }
    let bound = Bound::bind(competitor.driver.name(), &functions)?;
    let user = User::with_iommufd()?;
    let tracer = Tracer::start(false)?;
    let tracepoints = (competitor.name == AS_C).then(Tracepoints::enable);
    let tracepoints = tracepoints.transpose()?;

    let last = open(&user, &functions[..1])?;
    functions[1..].iter().try_for_each(wait_asleep)?;
    let mut closed = None;
    let work = || {
        closed = Some(tracer.count(|| close(last))?);
        Ok(())
    };
    let begins = match &tracepoints {
        Some(tracepoints) => tracepoints.events(work)?,
        None => work().map(|()| Vec::new())?,
    };
    let (done, calls) = closed.context("nothing was closed")?;
    let mut sample = times(&done);
    sample.extend(resets(calls.counts(), Counts::bus(1)));
    if tracepoints.is_some() {
        let begin = begins.iter().find(|event| event.name == BEGIN);
        let begin = begin.context("the driver traced no reset")?.time;
        let reset = calls.bus_reset().context("no bus was reset")?;
        sample.insert("wake_ns", nanoseconds(reset.saturating_sub(begin)));
    }
    bound.release()?;
    Ok(sample)
}
