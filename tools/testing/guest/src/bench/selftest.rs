// SPDX-License-Identifier: GPL-2.0

//! The kernel's own selftest for how long functions take that are opened at once,
//! `vfio_pci_device_init_perf_test`.

use std::process::Command;
use std::time::Duration;

use crate::bench::charts::case;
use crate::bench::measure::Sample;
use crate::bench::report::Case;
use crate::bench::report::Operation;
use crate::bench::report::Report;
use crate::bench::together::wait_asleep;
use crate::bench::Bench;
use crate::bench::EVERYBODY;
use crate::error::Doing;
use crate::events::seconds;
use crate::topology::Device;
use crate::Error;
use crate::Result;

pub(super) const NAME: &str = "selftest";

const PROGRAM: &str = "vfio_pci_device_init_perf_test";
const NUMBERS: [usize; 4] = [1, 2, 4, 8];

pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let functions = bench.grid(1, 8)?;
    bench.in_turns_on(NAME, EVERYBODY, &functions, |competitor, _| {
        for n in NUMBERS {
            let sample = initialise(bench, &functions[..n])?;
            let title = format!("{PROGRAM} on {n} functions of one bus");
            let case = Case {
                name: format!("{NAME}-{n}"),
                ..case(NAME, Operation::Selftest, n, "functions of one bus", title)
            };
            report.add(case, competitor.name, sample);
        }
        Ok(())
    })
}

/// Runs the program on functions that are asleep.
fn initialise(bench: &Bench, functions: &[Device]) -> Result<Sample> {
    wait_asleep(functions)?;
    let program = bench.selftests.join(PROGRAM);
    let output = Command::new(&program)
        // This one of the program's variants: character devices and iommufd.
        .args(["-v", "iommufd"])
        .args(functions.iter().map(|function| function.bdf().to_string()))
        .output()
        .doing(format!("running {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!(
            "{PROGRAM} failed, {}: {text}{complaint}",
            output.status
        )));
    }
    parse(&text).ok_or_else(|| Error::new(format!("{PROGRAM} did not say what it took: {text}")))
}

/// The times that the program says.
fn parse(text: &str) -> Option<Sample> {
    let time = |what: &str| -> Option<Duration> {
        let mut found = text.lines().filter_map(|line| {
            let (label, value) = line.split_once(": ")?;
            // "Max init time (per device)".
            let label = label.split(" (").next()?.trim();
            (label == what).then_some(value)
        });
        let value = found.next()?;
        // Of more than one variant, it is not known which is which.
        if found.next().is_some() {
            return None;
        }
        seconds(value.trim().strip_suffix('s')?)
    };
    Some(Sample {
        wall: time("Wall time")?,
        longest: time("Max init time")?,
        processor: None,
        resets: None,
        due: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Testing parallel initialization of 2 devices:
    0000:01:00.0
    0000:01:00.1
TAP version 13
1..1
# Starting 1 tests from 5 test cases.
#  RUN           vfio_pci_device_init_perf_test.iommufd.init ...
Wall time: 0.249182975s
Min init time (per device): 0.198655009s
Max init time (per device): 0.246131057s
Avg init time (per device): 0.227590594s
#            OK  vfio_pci_device_init_perf_test.iommufd.init
ok 1 vfio_pci_device_init_perf_test.iommufd.init
# PASSED: 1 / 1 tests passed.
# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0
";

    #[test]
    fn times_of_the_program() {
        let sample = parse(OUTPUT).expect("two times");
        assert_eq!(sample.wall, Duration::from_nanos(249_182_975));
        assert_eq!(sample.longest, Duration::from_nanos(246_131_057));
        assert_eq!(sample.lost(), None);
    }

    #[test]
    fn no_times() {
        assert_eq!(parse("1..0 # SKIP\n"), None);
        assert_eq!(parse(&OUTPUT.replace("975s", "975")), None);
        assert_eq!(parse(&format!("{OUTPUT}{OUTPUT}")), None);
    }
}
