// SPDX-License-Identifier: GPL-2.0

//! Makes the same calls on `vfio-pci` and on `vfio_pci_rs`, in one machine, and compares the
//! outcomes.
//!
//! Reports the drivers, and for each place and way to open its functions a fixed script and random
//! calls. If outcomes differ, the directory `transcripts` of the results has all calls.

mod call;
mod compare;
mod drivers;
mod meant;
mod places;
mod random;
mod record;
mod script;
mod session;
mod smoke;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use lab::driver::{self, Driver};
use lab::helper;
use lab::report::Report;
use lab::sriov::VirtualFunctions;
use lab::topology::Topology;

use crate::compare::Runs;
use crate::meant::List;
use crate::places::Place;
use crate::record::{Functions, Recorded, Recorder};
use crate::session::Mode;

/// How many differences are reported of each script, and how much of each.
const SHOWN: (usize, usize) = (10, 600);

/// Compares the answers of vfio-pci and vfio_pci_rs.
#[derive(Parser)]
struct Arguments {
    /// The ways to open devices (default: all that the kernel has).
    #[arg(long, value_delimiter = ',')]
    mode: Vec<Mode>,
    /// Only these places, or `drivers`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The number of sequences of random calls at each place.
    #[arg(long, default_value = "20")]
    seeds: u64,
    /// The number of calls of a sequence.
    #[arg(long, default_value = "1000")]
    calls: usize,
    /// Leave out half of the orders in which files can be closed.
    #[arg(long)]
    brief: bool,
    /// Expect a defect: fixed scripts and random calls must both differ as the pattern says (see
    /// meant.rs). Can be repeated; nothing else may differ.
    #[arg(long, value_name = "PATTERN")]
    finds: Vec<String>,
    /// The directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

/// Judges recordings.
struct Judge {
    meant: List,
    transcripts: PathBuf,
    report: Report,
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("differential: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { mode, only, seeds, calls, brief, finds, results } = arguments;
    let topology = Topology::read(&results)?;
    let is_chosen = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let places = places::ALL.iter().filter(|place| is_chosen(place.name));
    // The topology has either the place without an IOMMU or the others.
    let is_here = |place: &&Place| !only.is_empty() || place.name != places::NO_IOMMU;
    let places: Vec<&Place> = places.filter(is_here).collect();
    // Both ways to open a device depend on modules.
    let (c, ours) = (Driver::new("vfio-pci"), Driver::new("vfio_pci_rs"));
    c.load(&[])?;
    ensure!(mode.iter().all(|mode| mode.exists()), "this kernel cannot open a device so");
    let modes = if mode.is_empty() { vec![Mode::Group, Mode::Cdev] } else { mode.clone() };
    let modes = modes.into_iter().filter(|mode| mode.exists()).collect();
    let recorder = Recorder { c, ours, modes, brief, seeds: 1..seeds + 1, calls };

    let mut tests = vec!["drivers".to_owned(); usize::from(is_chosen("drivers"))];
    for place in &places {
        for mode in &recorder.modes {
            tests.push(name(place, *mode, "fixed"));
            tests.extend((seeds > 0).then(|| name(place, *mode, "random")));
        }
    }
    ensure!(!tests.is_empty(), "no place is called {only:?}");
    tests.push("meant differences".to_owned());
    let report = Report::create(&results, "differential", &tests)?;
    let transcripts = results.join("transcripts");
    let is_part = !only.is_empty() || !mode.is_empty();
    let mut judge = Judge { meant: List::new(is_part), transcripts, report };
    for (pattern, script) in finds.iter().flat_map(|of| [(of, "fixed"), (of, "random")]) {
        let reason = format!("{script} calls find the defect {pattern}");
        judge.meant.add(&format!("{script} {pattern}"), &reason, false);
    }

    for module in ["pci_stub", helper::MODULE] {
        driver::modprobe(module, &[])?;
    }
    if is_chosen("drivers") {
        let record = |driver| drivers::run(driver, &topology);
        let runs = record(&recorder.c)
            .and_then(|c| Ok(vec![("drivers".into(), Runs { c, ours: record(&recorder.ours)? })]));
        judge.test("drivers", "drivers", runs);
    }
    if !places.is_empty() {
        record(&recorder, &topology, &places, &mut judge)?;
    }
    judge.meant();
    Ok(judge.report.exit_code())
}

/// The name of a test.
fn name(place: &Place, mode: Mode, script: &str) -> String {
    format!("{} {mode:?} {script}", place.name).to_lowercase()
}

/// Records and judges the places.
fn record(
    recorder: &Recorder,
    topology: &Topology,
    places: &[&'static Place],
    judge: &mut Judge,
) -> Result<()> {
    recorder.c.load(&[])?;
    recorder.ours.load(&[])?;
    let has_vf = places.iter().any(|place| place.name == places::VF);
    let enable = || VirtualFunctions::enable(&*topology.device(places::PF)?, 1);
    let vfs = has_vf.then(enable).transpose()?;
    let device = |role: &&str| {
        let mut enabled = vfs.iter().flat_map(VirtualFunctions::devices);
        enabled.find(|vf| vf.role() == *role).map_or_else(|| topology.device(role), Ok)
    };
    let functions = |place: &&'static Place| -> Result<Functions> {
        Ok((*place, place.roles.iter().map(device).collect::<Result<_, _>>()?))
    };
    let functions: Vec<Functions> = places.iter().map(functions).collect::<Result<_>>()?;
    recorder.record(&functions, |recorded| judge.place(recorded, recorder));
    drop(vfs);
    recorder.ours.unload()?;
    recorder.c.unload()?;
    Ok(())
}

impl Judge {
    fn place(&mut self, (place, mode, runs): Recorded, recorder: &Recorder) {
        let mut runs = match runs {
            Ok(runs) => runs.into_iter(),
            Err(error) => return self.test(&name(place, mode, "fixed"), "fixed", Err(error)),
        };
        let fixed = runs.next().map(|runs| ("script".to_owned(), runs));
        self.test(&name(place, mode, "fixed"), "fixed", Ok(fixed.into_iter().collect()));
        let seeds = recorder.seeds.clone().map(|seed| format!("seed {seed}"));
        if !recorder.seeds.is_empty() {
            self.test(&name(place, mode, "random"), "random", Ok(seeds.zip(runs).collect()));
        }
    }

    /// Reports whether the outcomes of some recordings are the same on both drivers.
    fn test(&mut self, test: &str, script: &str, recordings: Result<Vec<(String, Runs)>>) {
        let Judge { meant, transcripts, report } = self;
        report.run(test, false, |t| {
            for (name, runs) in recordings? {
                let comparison = runs.compare(script, meant);
                t.note(format!("{name}: {comparison}"));
                let different = &comparison.different;
                let same = different.is_empty();
                t.check(format!("{name}: the same outcomes"), same, || shown(different));
                // Without outcomes to compare, nothing differs.
                t.holds(format!("{name}: there are outcomes"), comparison.compared > 0);
                if !same {
                    write_down(transcripts, &format!("{test} {name}").replace(' ', "-"), &runs)?;
                }
            }
            Ok(())
        });
    }

    /// Reports whether the differences that are meant are found.
    fn meant(&mut self) {
        let Judge { meant, report, .. } = self;
        report.run("meant differences", false, |t| {
            t.check("the list was read", true, || "");
            for meant in &meant.0 {
                let what = &meant.reason;
                match meant.found.get() {
                    0 if meant.optional => t.skip(what, "not everything was compared"),
                    found => t.check(what, found > 0, || "nothing differs by it"),
                }
            }
            Ok(())
        });
    }
}

fn write_down(directory: &Path, name: &str, runs: &Runs) -> Result<()> {
    fs::create_dir_all(directory).context("making a directory for transcripts")?;
    for (entries, extension) in [(&runs.c, "c"), (&runs.ours, "ours")] {
        let path = directory.join(format!("{name}.{extension}"));
        let mut file = BufWriter::new(File::create(&path).with_context(|| format!("{path:?}"))?);
        for (call, outcome) in entries {
            writeln!(file, "{call:?}\t{outcome:?}")?;
        }
        file.flush()?;
    }
    Ok(())
}

fn shown(differences: &[String]) -> String {
    let short = |text: &String| text.chars().take(SHOWN.1).collect();
    let mut lines: Vec<String> = differences.iter().take(SHOWN.0).map(short).collect();
    if differences.len() > SHOWN.0 {
        lines.push(format!("and {} more", differences.len() - SHOWN.0));
    }
    lines.join("\n")
}
