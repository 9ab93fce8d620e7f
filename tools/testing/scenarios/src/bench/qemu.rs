// SPDX-License-Identifier: GPL-2.0

//! One QEMU with assigned functions: from its start to its first answer by QMP, and from `quit` to
//! its end. It opens the functions one after the other, and then resets one after the other.
//!
//! QEMU starts as libvirt starts it, with its processor stopped, so no firmware runs. It has little
//! memory, which the kernel pins. The time of the same QEMU without functions is subtracted.

use anyhow::{ensure, Result};
use lab::machine::{Bound, PF};
use lab::resets::Calls;
use lab::sriov::VirtualFunctions;
use lab::topology::Device;
use lab::trace::Tracer;

use super::measure::{nanoseconds, wait_asleep, Sample};
use super::{Bench, C, OURS};
use crate::qemu::{Access, Qemu};
use crate::together::{timed, Times};

const VFS: usize = 7;
const ALONE: &str = "qemu_alone";
const ACCESSES: [(&str, Access); 2] = [("groups", Access::Groups), ("iommufd", Access::Iommufd)];
/// Once after bind, and again at once.
const TURNS: usize = 2;

pub(super) fn bus(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(1, 8)?;
    measure(bench, "qemu_bus", &functions, &ACCESSES)
}

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    bus(bench)?;
    let pf = bench.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    let vfs = enabled.devices();
    measure(bench, "qemu_vfs", &vfs, &ACCESSES)
}

/// Measures functions of one bus on a kernel without iommufd.
pub fn by_groups(bench: &mut Bench) -> Result<()> {
    let functions = bench.grid(1, 8)?;
    measure(bench, "qemu_bus", &functions, &ACCESSES[..1])
}

fn measure(
    bench: &mut Bench,
    part: &str,
    functions: &[Device],
    accesses: &[(&str, Access)],
) -> Result<()> {
    bench.in_turns(&[C, OURS], |_, competitor| {
        let mut samples = Vec::new();
        for &(name, access) in accesses {
            let tracer = Tracer::start(true)?;
            let (bound, bind) = timed(|| Bound::bind(competitor.driver.name(), functions))?;
            let mut runs = Vec::new();
            for _ in 0..TURNS {
                runs.push(start_and_quit(access, functions)?);
            }
            functions.iter().try_for_each(wait_asleep)?;
            let calls = tracer.calls()?;
            let ((), last) = timed(|| Ok(()))?;
            bound.release()?;

            // Resets in the background count for the operation that started last before them.
            let operations = runs.iter().flatten();
            let ends = operations.clone().skip(1).map(|next| next.start);
            let mut start = bind.start;
            let mut timed = Vec::new();
            for (operation, end) in operations.zip(ends.chain([last.start])) {
                timed.push(sample(operation, &calls.between(start, end)));
                start = end;
            }
            let [first_start, first_stop, again_start, again_stop] = &timed[..] else {
                unreachable!("two runs have four operations");
            };
            let both = first_stop.iter().map(|(&key, a)| (key, a + again_start[key]));
            let case = |operation| format!("{part}_{name}_{operation}");
            samples.push((case("restart"), both.collect()));
            samples.push((case("first_start"), first_start.clone()));
            samples.push((case("first_stop"), first_stop.clone()));
            samples.push((case("again_start"), again_start.clone()));
            samples.push((case("again_stop"), again_stop.clone()));
        }
        let [start, stop] = start_and_quit(Access::Groups, &[])?;
        samples.push((format!("{ALONE}_start"), sample(&start, &Calls::default())));
        samples.push((format!("{ALONE}_stop"), sample(&stop, &Calls::default())));
        Ok(samples)
    })?;
    let median = |operation| bench.median(&format!("{ALONE}_{operation}"));
    let (start, stop) = (median("start")?, median("stop")?);
    for (case, drivers) in &mut bench.report.cases {
        let alone = match case.rsplit('_').next() {
            _ if !case.starts_with(&format!("{part}_")) => continue,
            Some("start") => start,
            Some("stop") => stop,
            _ => start + stop,
        };
        for sample in drivers.values_mut().flatten() {
            let whole = sample["wall_ns"];
            sample.insert("whole_ns", whole);
            sample.insert("wall_ns", whole.saturating_sub(alone));
        }
    }
    Ok(())
}

/// Starts QEMU and makes it quit. Returns the times of both.
fn start_and_quit(access: Access, functions: &[Device]) -> Result<[Times; 2]> {
    // By a clock of instructions, a wait for a host's file takes as long as the next timer.
    let logs = std::env::temp_dir();
    let start = || Qemu::start(access, functions, &logs, "qemu", &["-S", "-m", "16M"]);
    let (qemu, start) = timed(start)?;
    let (status, stop) = timed(|| qemu.quit())?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok([start, stop])
}

/// Returns the time of an operation, and the function resets by their causes.
fn sample(operation: &Times, calls: &Calls) -> Sample {
    let count = |calls: Calls| calls.counts().flr as u64;
    Sample::from([
        ("wall_ns", nanoseconds(operation.length())),
        ("function_resets", count(calls.clone())),
        ("at_open", count(calls.at_open())),
        ("by_qemu", count(calls.asked_by_user())),
        ("at_close", count(calls.at_release())),
        ("in_background", count(calls.in_background())),
    ])
}
