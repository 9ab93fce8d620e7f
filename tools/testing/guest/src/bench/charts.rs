// SPDX-License-Identifier: GPL-2.0

//! Opening and releasing more and more functions at once.

use crate::bench::device::AddressSpace;
use crate::bench::measure;
use crate::bench::measure::made;
use crate::bench::measure::timed;
use crate::bench::measure::Resets;
use crate::bench::measure::Sample;
use crate::bench::measure::Work;
use crate::bench::report::Case;
use crate::bench::report::Operation;
use crate::bench::report::Report;
use crate::bench::together;
use crate::bench::together::wait_asleep;
use crate::bench::Bench;
use crate::bench::EVERYBODY;
use crate::bench::TWO;
use crate::lab::PF;
use crate::sriov::VirtualFunctions;
use crate::topology::Device;
use crate::trace::Tracer;
use crate::vfio::Opened;
use crate::vfio::User;
use crate::Result;

const VFS: usize = 7;
const DIRTY: usize = 8;

/// Functions of the grid that are opened and released.
pub(super) struct Grid {
    name: &'static str,
    /// The drivers that are measured.
    drivers: &'static [&'static str],
    /// How many functions of each bus.
    each: usize,
    /// Numbers of functions.
    numbers: &'static [usize],
    /// What is counted by them.
    x: &'static str,
    /// The same, after a number, in a sentence.
    what: fn(usize) -> String,
    /// Whether some are released while others are opened.
    mixed: bool,
}

/// Functions of one bus.
pub(super) static BUS: Grid = Grid {
    name: "bus",
    drivers: EVERYBODY,
    each: 8,
    numbers: &[1, 2, 4, 8],
    x: "functions of one bus",
    what: |n| format!("{} of one bus", functions(n)),
    mixed: true,
};

/// Functions that share nothing.
pub(super) static BUSES: Grid = Grid {
    name: "buses",
    drivers: EVERYBODY,
    each: 1,
    numbers: &[1, 2, 4, 8, 16],
    x: "buses, one function of each",
    what: |n| format!("{}, each of another bus", functions(n)),
    mixed: false,
};

/// Many functions.
pub(super) static SCALE: Grid = Grid {
    name: "scale",
    // The third one would take most of the time, only to have each function add the same to it.
    drivers: TWO,
    each: 8,
    numbers: &[8, 16, 32, 64],
    x: "functions, 8 of each bus",
    what: |n| format!("{}, 8 of each bus", functions(n)),
    mixed: false,
};

/// Measures functions of the grid.
pub(super) fn run(bench: &Bench, report: &mut Report, grid: &'static Grid) -> Result<()> {
    let most = grid.numbers.iter().max().copied().unwrap_or(0);
    let devices = bench.grid(most.div_ceil(grid.each), grid.each)?;
    bench.in_turns_on(grid.name, grid.drivers, &devices, |competitor, user| {
        let tracer = Tracer::start_counting()?;
        for &n in grid.numbers {
            let case = |operation| {
                let what = (grid.what)(n);
                let title = match operation {
                    Operation::Mixed => format!("release half of {what}, open the others"),
                    _ => format!("{} {what}", verb(operation)),
                };
                case(grid.name, operation, n, grid.x, title)
            };
            let devices = &devices[..n];
            let due = Resets {
                function: n,
                bus: 0,
            };
            let (open, opened) = open(&tracer, user, devices, due)?;
            report.add(case(Operation::Open), competitor.name, open);
            let release = release(&tracer, opened, due)?;
            report.add(case(Operation::Release), competitor.name, release);
            if grid.mixed && n > 1 {
                let mixed = mixed(&tracer, user, devices, due)?;
                report.add(case(Operation::Mixed), competitor.name, mixed);
            }
        }
        Ok(())
    })
}

/// Measures virtual functions.
pub(super) fn virtual_functions(bench: &Bench, report: &mut Report) -> Result<()> {
    let pf = bench.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    let devices = enabled.devices();
    bench.in_turns_on("vfs", EVERYBODY, &devices, |competitor, user| {
        let tracer = Tracer::start_counting()?;
        let due = Resets {
            function: VFS,
            bus: 0,
        };
        let case = |operation| {
            let title = format!("{} {VFS} VFs of one PF", verb(operation));
            case("vfs", operation, VFS, "VFs", title)
        };
        let (open, opened) = open(&tracer, user, &devices, due)?;
        report.add(case(Operation::Open), competitor.name, open);
        let release = release(&tracer, opened, due)?;
        report.add(case(Operation::Release), competitor.name, release);
        Ok(())
    })
}

/// Measures functions that only a reset of their bus cleans, all of which are bound whatever number
/// of them is opened.
pub(super) fn dirty(bench: &Bench, report: &mut Report) -> Result<()> {
    let devices = bench.family("dirty", DIRTY)?;
    bench.in_turns_on("dirty", EVERYBODY, &devices, |competitor, user| {
        let tracer = Tracer::start_counting()?;
        let case = |operation, n| {
            let what = format!("{} without a reset of their own", functions(n));
            let title = format!("{} {what}", verb(operation));
            case("dirty", operation, n, "functions without a reset", title)
        };
        let one_reset = Resets {
            function: 0,
            bus: 1,
        };
        for n in [1, 2, 4, DIRTY] {
            let (open, opened) = open(&tracer, user, &devices[..n], Resets::default())?;
            report.add(case(Operation::Open, n), competitor.name, open);
            let release = release(&tracer, opened, one_reset)?;
            report.add(case(Operation::Release, n), competitor.name, release);
        }
        let hot_reset = hot_reset(&tracer, &devices, one_reset)?;
        report.add(case(Operation::HotReset, DIRTY), competitor.name, hot_reset);
        Ok(())
    })
}

/// A case of all the functions that are counted, by the name that those of a chart have.
pub(super) fn case(
    chart: &'static str,
    operation: Operation,
    n: usize,
    x: &'static str,
    title: String,
) -> Case {
    Case {
        name: format!("{chart}-{n}-{}", operation.suffix()),
        title,
        chart,
        operation,
        n,
        x,
        functions: n,
    }
}

fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Open => "open",
        Operation::Release => "release",
        Operation::HotReset => "hot reset of",
        Operation::Mixed => "release and open",
        Operation::Probe => "bind",
        Operation::Selftest => "initialise",
    }
}

fn functions(n: usize) -> String {
    format!("{n} function{}", if n == 1 { "" } else { "s" })
}

/// Opens functions that are asleep, all at once.
pub(super) fn open(
    tracer: &Tracer,
    user: &User,
    functions: &[Device],
    due: Resets,
) -> Result<(Sample, Vec<Opened>)> {
    wait_asleep(functions)?;
    measure::measure(tracer, due, || together::open(user, functions))
}

/// Releases functions, all at once.
pub(super) fn release(tracer: &Tracer, opened: Vec<Opened>, due: Resets) -> Result<Sample> {
    Ok(measure::measure(tracer, due, || together::release(opened))?.0)
}

/// Releases every other function, which is open, while the others are opened.
fn mixed(tracer: &Tracer, user: &User, functions: &[Device], due: Resets) -> Result<Sample> {
    wait_asleep(functions)?;
    let (open, closed): (Vec<_>, Vec<_>) =
        functions.chunks_exact(2).map(|p| (&p[0], &p[1])).unzip();
    let open: Vec<Device> = open.into_iter().cloned().collect();
    let mut work: Vec<Work<'_, Option<Opened>>> = Vec::new();
    for (opened, function) in together::open(user, &open)?.into_iter().zip(closed) {
        work.push(Box::new(move || {
            drop(opened.value);
            Ok(None)
        }));
        work.push(Box::new(move || user.open(function).map(Some)));
    }
    Ok(measure::measure(tracer, due, || measure::together(work))?.0)
}

/// Opens all functions of a bus, and resets it.
fn hot_reset(tracer: &Tracer, functions: &[Device], due: Resets) -> Result<Sample> {
    wait_asleep(functions)?;
    let space = AddressSpace::new()?;
    let mut opened = functions
        .iter()
        .map(|function| space.open(function))
        .collect::<Result<Vec<_>>>()?;
    let reset = || match opened.first_mut() {
        Some(first) => timed(|| first.hot_reset()),
        None => timed(|| Ok(())),
    };
    let (done, calls) = tracer.count(reset)?;
    Ok(Sample::of(&[done.span]).with_resets(made(&calls), due))
}
