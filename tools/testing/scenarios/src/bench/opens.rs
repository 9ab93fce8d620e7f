// SPDX-License-Identifier: GPL-2.0

//! Opening and closing functions at once, and binding them.

use std::process::Command;

use anyhow::{Context, Result};
use lab::driver;
use lab::machine::{Bound, PF};
use lab::resets::Counts;
use lab::sriov::VirtualFunctions;
use lab::topology::Device;
use lab::trace::{seconds, Tracer};

use super::measure::{nanoseconds, open_and_close, resets, times, wait_rested, Order, Sample};
use super::{Bench, AS_C, C, GLOBAL, OURS};
use crate::together::{timed, Times};

const ALL: &[&str] = &[C, OURS, AS_C, GLOBAL];
// The last driver would take most of the time.
const FAST: &[&str] = &[C, OURS, AS_C];
const NONE: Counts = Counts::NONE;
const VFS: usize = 7;
const SELFTEST: &str = "vfio_pci_device_init_perf_test";

/// Functions to open and close.
struct Opens<'a> {
    part: &'a str,
    /// How many of them at a time, in turn.
    numbers: &'a [usize],
    functions: Vec<Device>,
    /// The resets that vfio-pci owes when some are opened, and when they are closed.
    due: fn(usize) -> [Counts; 2],
    order: Order,
}

impl<'a> Opens<'a> {
    /// Functions with FLR, which are opened and closed at once.
    fn with_flr(part: &'a str, numbers: &'a [usize], functions: Vec<Device>) -> Self {
        Opens {
            part,
            numbers,
            functions,
            due: |n| [Counts::flr(n), Counts::flr(n)],
            order: Order::Together,
        }
    }

    fn measure(&self, bench: &mut Bench, drivers: &[&'static str]) -> Result<()> {
        let case = |n: usize, operation: &str| format!("{}_{n}_{operation}", self.part);
        bench.in_turns_on(drivers, &self.functions, |competitor, user| {
            let tracer = Tracer::start(false)?;
            let mut samples = Vec::new();
            for &n in self.numbers {
                let mut due = (self.due)(n);
                if competitor.name == OURS {
                    // They are known to be clean.
                    due[0] = NONE;
                }
                let functions = &self.functions[..n];
                let [open, close] = open_and_close(&tracer, user, functions, due, self.order)?;
                samples.push((case(n, "open"), open));
                samples.push((case(n, "close"), close));
            }
            Ok(samples)
        })
    }
}

/// Functions of one bus with FLR.
pub(super) fn bus(bench: &mut Bench) -> Result<()> {
    Opens::with_flr("bus", &[1, 2, 4, 8], bench.grid(1, 8)?).measure(bench, ALL)
}

/// The same, by one thread.
pub(super) fn thread(bench: &mut Bench) -> Result<()> {
    let opens =
        Opens { order: Order::InTurn, ..Opens::with_flr("thread", &[8], bench.grid(1, 8)?) };
    opens.measure(bench, FAST)
}

/// Functions of one bus with FLR and MSI-X.
pub(super) fn vectors(bench: &mut Bench) -> Result<()> {
    Opens::with_flr("vectors", &[1, 8], bench.grid(1, 8)?).measure(bench, FAST)
}

/// Functions with FLR that share nothing.
pub(super) fn buses(bench: &mut Bench) -> Result<()> {
    Opens::with_flr("buses", &[8, 16], bench.grid(16, 1)?).measure(bench, ALL)
}

/// Many functions with FLR.
pub(super) fn scale(bench: &mut Bench) -> Result<()> {
    Opens::with_flr("scale", &[64], bench.grid(8, 8)?).measure(bench, FAST)
}

pub(super) fn virtual_functions(bench: &mut Bench) -> Result<()> {
    let pf = bench.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    Opens::with_flr("vfs", &[VFS], enabled.devices()).measure(bench, ALL)
}

/// Functions that only a reset of their bus cleans. All are bound, and some are opened.
pub(super) fn dirty(bench: &mut Bench) -> Result<()> {
    let opens = Opens {
        due: |_| [NONE, Counts::bus(1)],
        ..Opens::with_flr("dirty", &[1, 8], bench.family("dirty", 8)?)
    };
    opens.measure(bench, ALL)
}

/// Binding many functions one after the other, as udev does. Ours resets them in the background
/// meanwhile, which emulation makes costly: QEMU goes through all 200 for each.
pub(super) fn probe(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(25, 8)?;
    let case = format!("probe_{}", functions.len());
    bench.in_turns(FAST, |_, competitor| {
        let name = competitor.driver.name();
        Bound::bind(name, functions.last())?.release()?;

        let tracer = Tracer::start(false)?;
        let (done, calls) = tracer.count(|| {
            let bind = |function| timed(|| Bound::bind(name, [function]));
            functions.iter().map(bind).collect::<Result<Vec<_>>>()
        })?;
        let (bound, done): (Vec<_>, Vec<Times>) = done.into_iter().unzip();
        let wall = done.iter().map(Times::length).sum();
        let mut sample = times(&done);
        sample.insert("wall_ns", nanoseconds(wall));
        sample.extend(resets(calls.counts(), NONE));
        bound.into_iter().try_for_each(Bound::release)?;
        Ok(vec![(case.clone(), sample)])
    })
}

/// The kernel's own test of how long it takes to open functions at once.
pub(super) fn selftest(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(1, 8)?;
    let case = |n: usize| format!("selftest_{n}");
    let numbers = [1, 8];
    let program = bench.selftests.join(SELFTEST);
    bench.in_turns_on(ALL, &functions, |_, _| {
        let initialise = |n: usize| {
            let functions = &functions[..n];
            functions.iter().try_for_each(wait_rested)?;
            let addresses = functions.iter().map(|function| function.bdf().to_string());
            let mut command = Command::new(&program);
            let text = driver::run(command.args(["-v", "iommufd"]).args(addresses))?;
            let sample = parse(&text).with_context(|| format!("there is no time in: {text}"))?;
            Ok((case(n), sample))
        };
        numbers.into_iter().map(initialise).collect()
    })
}

/// Parses the output of the kernel's test.
fn parse(text: &str) -> Option<Sample> {
    // One variant has run.
    let time = |what: &str| {
        let line = text.lines().find(|line| line.starts_with(what))?;
        let (_, value) = line.split_once(": ")?;
        seconds(value.trim().strip_suffix('s')?).map(nanoseconds)
    };
    let (wall, longest) = (time("Wall time")?, time("Max init time")?);
    Some(Sample::from([("wall_ns", wall), ("longest_ns", longest)]))
}
