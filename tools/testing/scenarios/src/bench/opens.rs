// SPDX-License-Identifier: GPL-2.0

//! Opening and closing functions at once, and binding them.

use std::process::Command;

use anyhow::{Context, Result};
use lab::driver;
use lab::machine::{Bound, PF};
use lab::sriov::VirtualFunctions;
use lab::topology::Device;
use lab::trace::{seconds, Counts, Tracer};

use super::measure::{nanoseconds, open_and_close, resets, times, wait_asleep, Sample};
use super::{Bench, C, GLOBAL, OURS};
use crate::together::timed;

const ALL: &[&str] = &[C, OURS, GLOBAL];
const TWO: &[&str] = &[C, OURS];
const NONE: Counts = Counts::NONE;
const VFS: usize = 7;
const SELFTEST: &str = "vfio_pci_device_init_perf_test";

/// Functions of one bus with FLR.
pub(super) fn bus(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(1, 8)?;
    let what = "functions of one bus";
    with_flr(bench, ALL, "bus", &functions, &[1, 2, 4, 8], what)
}

/// Functions with FLR that share nothing.
pub(super) fn buses(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(16, 1)?;
    let what = "functions, each of its own bus";
    with_flr(bench, ALL, "buses", &functions, &[8, 16], what)
}

/// Many functions with FLR.
pub(super) fn scale(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(8, 8)?;
    // The third driver would take most of the time.
    let what = "functions, 8 of each bus";
    with_flr(bench, TWO, "scale", &functions, &[64], what)
}

pub(super) fn virtual_functions(bench: &mut Bench) -> Result<()> {
    let pf = bench.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    let what = "VFs of one PF";
    with_flr(bench, ALL, "vfs", &enabled.devices(), &[VFS], what)
}

/// Functions that only a reset of their bus cleans. All are bound, and some are opened.
pub(super) fn dirty(bench: &mut Bench) -> Result<()> {
    let functions = bench.family("dirty", 8)?;
    let what = "functions without a reset of their own";
    let due = |_| [NONE, Counts::bus(1)];
    measure(bench, ALL, "dirty", &functions, &[1, 8], what, due)
}

fn with_flr(
    bench: &mut Bench,
    drivers: &[&'static str],
    part: &str,
    functions: &[Device],
    numbers: &[usize],
    what: &str,
) -> Result<()> {
    let due = |n| [Counts::flr(n), Counts::flr(n)];
    measure(bench, drivers, part, functions, numbers, what, due)
}

/// Opens and closes as many of `functions` as `numbers` say.
fn measure(
    bench: &mut Bench,
    drivers: &[&'static str],
    part: &str,
    functions: &[Device],
    numbers: &[usize],
    what: &str,
    due: impl Fn(usize) -> [Counts; 2],
) -> Result<()> {
    let case = |n: usize, operation: &str| format!("{part}_{n}_{operation}");
    let titles = |operation: &'static str| {
        let title = move |&n| (case(n, operation), format!("{operation} {n} {what}"));
        numbers.iter().map(title)
    };
    let titles: Vec<_> = titles("open").chain(titles("close")).collect();
    bench.in_turns_on(drivers, functions, &titles, |_, user| {
        let tracer = Tracer::start(false)?;
        let mut samples = Vec::new();
        for &n in numbers {
            let [open, close] = open_and_close(&tracer, user, &functions[..n], due(n))?;
            samples.push((case(n, "open"), open));
            samples.push((case(n, "close"), close));
        }
        Ok(samples)
    })
}

/// Binding many functions one after the other, as udev does.
pub(super) fn probe(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(25, 8)?;
    let case = format!("probe_{}", functions.len());
    let title = format!("bind {} functions, one after the other", functions.len());
    bench.in_turns(TWO, &[(case.clone(), title)], |_, competitor| {
        let name = competitor.driver.name();
        Bound::bind(name, functions.last())?.release()?;

        let tracer = Tracer::start(false)?;
        let (done, calls) = tracer.count(|| {
            let bind = |function| timed(|| Bound::bind(name, [function]));
            functions.iter().map(bind).collect::<Result<Vec<_>>>()
        })?;
        let wall = done.iter().map(|done| done.length()).sum();
        let mut sample = times(&done);
        sample.insert("wall_ns", nanoseconds(wall));
        sample.extend(resets(calls.counts(), NONE));
        done.into_iter().try_for_each(|done| done.value.release())?;
        Ok(vec![(case.clone(), sample)])
    })
}

/// The kernel's own test of how long it takes to open functions at once.
pub(super) fn selftest(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(1, 8)?;
    let case = |n: usize| format!("selftest_{n}");
    let numbers = [1, 8];
    let titles = numbers.map(|n| (case(n), format!("{SELFTEST} on {n} functions of one bus")));
    bench.in_turns_on(ALL, &functions, &titles, |bench, _| {
        let initialise = |n: usize| {
            let functions = &functions[..n];
            functions.iter().try_for_each(wait_asleep)?;
            let addresses = functions.iter().map(|function| function.bdf().to_string());
            let mut command = Command::new(bench.selftests.join(SELFTEST));
            let text = driver::run(command.args(["-v", "iommufd"]).args(addresses))?;
            let sample = parse(&text).with_context(|| format!("there is no time in: {text}"))?;
            Ok((case(n), sample))
        };
        numbers.into_iter().map(initialise).collect()
    })
}

/// Parses the output of the kernel's test.
fn parse(text: &str) -> Option<Sample> {
    let time = |what: &str| -> Option<u64> {
        let mut found = text.lines().filter_map(|line| {
            let (label, value) = line.split_once(": ")?;
            // "Max init time (per device)".
            let label = label.split(" (").next()?.trim();
            (label == what).then_some(value)
        });
        let value = found.next()?;
        // More than one variant ran.
        if found.next().is_some() {
            return None;
        }
        seconds(value.trim().strip_suffix('s')?).map(nanoseconds)
    };
    let (wall, longest) = (time("Wall time")?, time("Max init time")?);
    Some(Sample::from([("wall_ns", wall), ("longest_ns", longest)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
TAP version 13
1..1
#  RUN           vfio_pci_device_init_perf_test.iommufd.init ...
Wall time: 0.249182975s
Min init time (per device): 0.198655009s
Max init time (per device): 0.246131057s
Avg init time (per device): 0.227590594s
#            OK  vfio_pci_device_init_perf_test.iommufd.init
";

    #[test]
    fn times_of_the_selftest() {
        let times = [("wall_ns", 249_182_975), ("longest_ns", 246_131_057)];
        assert_eq!(parse(OUTPUT), Some(times.into()));
    }

    #[test]
    fn no_times() {
        assert_eq!(parse("1..0 # SKIP\n"), None);
        assert_eq!(parse(&OUTPUT.replace("975s", "975")), None);
        assert_eq!(parse(&format!("{OUTPUT}{OUTPUT}")), None);
    }
}
