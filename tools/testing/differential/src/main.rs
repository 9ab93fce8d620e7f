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

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use lab::driver::{self, Driver};
use lab::helper;
use lab::report::Report;
use lab::sriov::VirtualFunctions;
use lab::topology::Topology;

use crate::compare::{Comparison, Difference, Runs};
use crate::meant::List;
use crate::places::Place;
use crate::record::{Functions, Recorded, Recorder};
use crate::session::{Entry, Mode};

/// How many differences are printed of each script.
const SHOWN: usize = 10;

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
    /// The first seed.
    #[arg(long, default_value = "1")]
    first_seed: u64,
    /// Leave out most orders in which files can be closed.
    #[arg(long)]
    brief: bool,
    /// Expect a defect, by which calls differ whose text matches: both the fixed script and random
    /// calls must find it, and nothing else. Can be repeated.
    #[arg(long, value_name = "PATTERN")]
    finds: Vec<String>,
    /// The driver that is compared with vfio-pci.
    #[arg(long, default_value = "vfio_pci_rs")]
    driver: String,
    /// The directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

/// Judges recordings, and counts.
struct Judge {
    meant: List,
    results: PathBuf,
    compared: usize,
    finds: Vec<String>,
    /// How often the fixed scripts and random calls have found each defect.
    found: Vec<[usize; 2]>,
    report: Report,
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("differential: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let topology = Topology::read(&arguments.results)?;
    let is_chosen =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|o| o == name);
    let places: Vec<&Place> = places::ALL.iter().filter(|place| is_chosen(place.name)).collect();
    // Both ways to open a device depend on modules.
    let c = Driver::new("vfio-pci");
    c.load(&[])?;
    let recorder = Recorder {
        c,
        ours: Driver::new(&arguments.driver),
        modes: modes(&arguments.mode)?,
        brief: arguments.brief,
        seeds: arguments.first_seed..arguments.first_seed + arguments.seeds,
        calls: arguments.calls,
    };
    let with_drivers = is_chosen("drivers");
    ensure!(with_drivers || !places.is_empty(), "no place is called {:?}", arguments.only);

    let mut tests = vec!["drivers".to_owned(); usize::from(with_drivers)];
    for place in &places {
        for mode in &recorder.modes {
            tests.push(format!("{} {} fixed", place.name, mode.name()));
            if !recorder.seeds.is_empty() {
                tests.push(format!("{} {} random", place.name, mode.name()));
            }
        }
    }
    tests.push("meant differences".to_owned());
    tests.extend((!arguments.finds.is_empty()).then(|| "defects".to_owned()));
    let mut judge = Judge {
        meant: List::read()?,
        results: arguments.results.clone(),
        compared: 0,
        found: vec![[0; 2]; arguments.finds.len()],
        finds: arguments.finds,
        report: Report::create(&arguments.results, "differential", &tests)?,
    };

    for module in ["pci_stub", helper::MODULE] {
        driver::modprobe(module, &[])?;
    }
    if with_drivers {
        judge.drivers(&recorder, &topology);
    }
    record(&recorder, &topology, &places, &mut judge)?;
    judge.meant(arguments.only.is_empty() && arguments.mode.is_empty());
    judge.defects();
    println!("# {} outcomes were compared", judge.compared);
    Ok(judge.report.exit_code())
}

/// Records and judges the places.
fn record(
    recorder: &Recorder,
    topology: &Topology,
    places: &[&'static Place],
    judge: &mut Judge,
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    recorder.c.load(&[])?;
    recorder.ours.load(&[])?;
    let pf = topology.device(places::PF)?;
    let vfs = match places.iter().any(|place| place.name == places::VF) {
        true => Some(VirtualFunctions::enable(&pf, 1)?),
        false => None,
    };
    let mut functions: Vec<Functions> = Vec::new();
    for place in places {
        let virtual_function = vfs.as_ref().filter(|_| place.name == places::VF);
        functions.push((
            place,
            match virtual_function {
                Some(vfs) => vfs.devices(),
                None => place
                    .roles
                    .iter()
                    .map(|role| topology.device(role))
                    .collect::<Result<_, _>>()?,
            },
        ));
    }
    recorder.record(&functions, |recorded| judge.place(recorded, recorder));
    drop(vfs);
    recorder.ours.unload()?;
    recorder.c.unload()?;
    Ok(())
}

/// The ways to open devices: as on the command line, or all that the kernel has.
fn modes(asked: &[Mode]) -> Result<Vec<Mode>> {
    for mode in asked {
        ensure!(mode.exists(), "this kernel cannot open a device by its {}", mode.name());
    }
    let mut modes = if asked.is_empty() { vec![Mode::Group, Mode::Cdev] } else { asked.to_vec() };
    modes.retain(|mode| mode.exists());
    Ok(modes)
}

impl Judge {
    fn drivers(&mut self, recorder: &Recorder, topology: &Topology) {
        let one = |driver| drivers::run(driver, topology);
        let runs = one(&recorder.c).and_then(|c| {
            let mut runs = Runs { c, ours: one(&recorder.ours)?, again: None };
            if runs.c != runs.ours {
                runs.again = Some(one(&recorder.c)?);
            }
            Ok(runs)
        });
        self.test("drivers", runs.map(|runs| vec![("script".to_owned(), runs)]));
    }

    fn place(&mut self, recorded: Recorded, recorder: &Recorder) {
        let name = format!("{} {}", recorded.place.name, recorded.mode.name());
        let mut runs = match recorded.runs {
            Ok(runs) => runs.into_iter(),
            Err(error) => return self.test(&format!("{name} fixed"), Err(error)),
        };
        let fixed = runs.next().map(|runs| ("script".to_owned(), runs));
        self.test(&format!("{name} fixed"), Ok(fixed.into_iter().collect()));
        let seeds = recorder.seeds.clone().map(|seed| format!("seed {seed}"));
        if !recorder.seeds.is_empty() {
            self.test(&format!("{name} random"), Ok(seeds.zip(runs).collect()));
        }
    }

    /// Reports whether the outcomes of some scripts are the same on both drivers.
    fn test(&mut self, name: &str, runs: Result<Vec<(String, Runs)>>) {
        let Judge { meant, results, compared, finds, found, report } = self;
        let kind = usize::from(name.ends_with("random"));
        report.run(name, false, |t| {
            for (script, runs) in runs? {
                let mut comparison = runs.compare(meant);
                for (pattern, found) in finds.iter().zip(found.iter_mut()) {
                    found[kind] += comparison.take(pattern);
                }
                *compared += comparison.compared;
                t.note(format!("{script}: {comparison}"));
                let Comparison { compared, varying, different, .. } = comparison;
                t.check(format!("{script}: the same outcomes"), different.is_empty(), || {
                    shown(&different)
                });
                // Without outcomes to compare, nothing differs.
                let varies = !varying.is_empty() || compared == 0;
                t.check(format!("{script}: nothing varies on vfio-pci"), !varies, || {
                    shown(&varying)
                });
                if varies || !different.is_empty() {
                    write_down(&results.join("transcripts"), &format!("{name} {script}"), &runs)?;
                }
            }
            Ok(())
        });
    }

    /// Reports whether the expected defects were found.
    fn defects(&mut self) {
        let Judge { finds, found, report, .. } = self;
        if finds.is_empty() {
            return;
        }
        report.run("defects", false, |t| {
            for (pattern, [fixed, random]) in finds.iter().zip(found) {
                for (who, count) in [("a fixed script", fixed), ("random calls", random)] {
                    t.check(format!("found by {who}: {pattern}"), *count > 0, || "no call differs");
                }
            }
            Ok(())
        });
    }

    /// Reports whether the differences that are meant are found.
    fn meant(&mut self, all: bool) {
        let Judge { meant, report, .. } = self;
        report.run("meant differences", false, |t| {
            t.check("the list was read", true, || "");
            for (meant, times) in meant.found() {
                let what = format!("{}: {}", meant.name, meant.reason);
                match (&meant.conditional, times) {
                    (Some(why), 0) => t.skip(what, why),
                    (None, 0) if !all => t.skip(what, "not everything was compared"),
                    _ => t.check(what, times > 0, || "the drivers no longer differ by it"),
                }
            }
            Ok(())
        });
    }
}

fn write_down(directory: &Path, name: &str, runs: &Runs) -> Result<()> {
    fs::create_dir_all(directory)?;
    let again = runs.again.iter().map(|again| (again, "c-again"));
    for (entries, extension) in [(&runs.c, "c"), (&runs.ours, "ours")].into_iter().chain(again) {
        let path = directory.join(format!("{}.{extension}", name.replace(' ', "-")));
        write_entries(&path, entries).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn write_entries(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for (call, outcome) in entries {
        writeln!(file, "{call:?}\t{outcome:?}")?;
    }
    file.flush()
}

fn shown(differences: &[Difference]) -> String {
    let mut text: Vec<String> =
        differences.iter().take(SHOWN).map(|difference| difference.to_string()).collect();
    if differences.len() > SHOWN {
        text.push(format!("and {} more", differences.len() - SHOWN));
    }
    text.join("\n")
}
