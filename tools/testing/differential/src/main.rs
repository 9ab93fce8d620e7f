// SPDX-License-Identifier: GPL-2.0

//! Drives devices through the whole user API of vfio-pci, on vfio-pci, on vfio_pci_rs and on vfio-pci
//! again, in the same machine, and compares what came back.
//!
//! Writes `differential.ktap` to the directory that the environment variable `RESULTS` names, with two
//! subtests for each device and way to open it: a fixed script, and random calls from seeds. Where
//! answers differ, what was called and answered is in `transcripts` there.

mod abi;
mod call;
mod compare;
mod devices;
mod facts;
mod fixed;
mod meant;
mod random;
mod record;
mod session;
mod sysfs;

use std::fs;
use std::io::BufWriter;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vfio_pci_rs_guest::driver::Driver;
use vfio_pci_rs_guest::error::Doing;
use vfio_pci_rs_guest::ktap::Report;
use vfio_pci_rs_guest::ktap::Test;
use vfio_pci_rs_guest::sriov::VirtualFunctions;
use vfio_pci_rs_guest::topology::Topology;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

use crate::compare::Comparison;
use crate::compare::Difference;
use crate::compare::Runs;
use crate::devices::Profile;
use crate::meant::List;
use crate::record::Recorded;
use crate::record::Recorder;
use crate::session::Entry;
use crate::session::Mode;

/// How many differences are printed of each subtest.
const SHOWN: usize = 10;

/// Compare the answers of vfio-pci and vfio_pci_rs.
#[derive(Parser)]
struct Arguments {
    /// How devices are opened; in all ways that the kernel has, if this is not given.
    #[arg(long, value_delimiter = ',')]
    mode: Vec<Mode>,
    /// Only the devices of these roles.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many sequences of random calls there are for each device.
    #[arg(long, default_value = "20")]
    seeds: u64,
    /// How many calls a sequence has.
    #[arg(long, default_value = "2000")]
    calls: usize,
    /// The first seed; the others follow it.
    #[arg(long, default_value = "1")]
    first_seed: u64,
    /// Write to extended configuration space ones and zeroes only: most calls of the fixed script are
    /// for the other bits.
    #[arg(long)]
    brief: bool,
    /// Write down all that was called and answered, and not only where answers differ.
    #[arg(long)]
    transcripts: bool,
    /// How many devices are used at a time.
    #[arg(long, default_value = "4")]
    jobs: NonZeroUsize,
    /// The driver that is compared, by its name under /sys/bus/pci/drivers.
    #[arg(long, default_value = "vfio_pci_rs")]
    driver: String,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

/// What answers are judged by, and what has come of it so far.
struct Judge {
    meant: List,
    transcripts: bool,
    results: PathBuf,
    total: Comparison,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("differential: {failed} failed");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("differential: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<usize> {
    let topology = Topology::read(&arguments.results)?;
    let profiles = choose(&arguments.only)?;
    let c = Driver::new("vfio-pci");
    let ours = Driver::new(&arguments.driver);
    c.load(&[])?;
    if ours.name() != c.name() {
        ours.load(&[])?;
    }
    let recorder = Recorder {
        modes: modes(&arguments.mode)?,
        seeds: arguments.first_seed..arguments.first_seed + arguments.seeds,
        brief: arguments.brief,
        calls: arguments.calls,
        c,
        ours,
    };
    let by_vf = profiles.iter().any(|profile| profile.role == devices::VF);
    let vfs = match by_vf {
        true => Some(VirtualFunctions::enable(
            topology.device(devices::PF)?.bdf(),
            1,
        )?),
        false => None,
    };
    let mut functions = Vec::new();
    for profile in profiles {
        let function = match &vfs {
            Some(vfs) if profile.role == devices::VF => vfs.devices().into_iter().next(),
            _ => Some(topology.device(profile.role)?),
        };
        let function = function.ok_or_else(|| Error::new("there is no virtual function"))?;
        functions.push((function, profile));
    }

    let mut judge = Judge {
        meant: List::read()?,
        transcripts: arguments.transcripts,
        results: arguments.results.clone(),
        total: Comparison::default(),
    };
    let of_device = if recorder.seeds.is_empty() { 1 } else { 2 };
    let subtests = 2 + recorder.modes.len() * functions.len() * of_device;
    let mut report = Report::create(&arguments.results, "differential", subtests)?;
    judge.drivers(&mut report, &recorder)?;
    // What is meant of a device is not there without it.
    let all = arguments.only.is_empty() && arguments.mode.is_empty();
    recorder.record(functions, arguments.jobs, |recorded| {
        judge.device(&mut report, recorded)
    })?;
    judge.meant(&mut report, all)?;
    println!("# differential: {}", judge.total);
    drop(vfs);
    if recorder.ours.name() != recorder.c.name() {
        recorder.ours.unload()?;
    }
    recorder.c.unload()?;
    Ok(report.failed())
}

fn choose(only: &[String]) -> Result<Vec<&'static Profile>> {
    let is_known = |role: &String| devices::ALL.iter().any(|profile| profile.role == role);
    if let Some(unknown) = only.iter().find(|role| !is_known(role)) {
        return Err(Error::new(format!("there is no device '{unknown}'")));
    }
    let chosen = devices::ALL
        .iter()
        .filter(|profile| only.is_empty() || only.iter().any(|role| role == profile.role));
    Ok(chosen.collect())
}

/// How devices are opened: as is asked for, or in all ways that the kernel has.
fn modes(asked_for: &[Mode]) -> Result<Vec<Mode>> {
    if let Some(missing) = asked_for.iter().find(|mode| !mode.exists()) {
        return Err(Error::new(format!("this kernel has no {missing}")));
    }
    if !asked_for.is_empty() {
        return Ok(asked_for.to_vec());
    }
    let (there, missing): (Vec<Mode>, Vec<Mode>) = [Mode::Group, Mode::Cdev]
        .into_iter()
        .partition(|mode| mode.exists());
    for mode in missing {
        println!("# not tested: this kernel has no {mode}");
    }
    Ok(there)
}

impl Judge {
    /// What the drivers and their modules show.
    fn drivers(&mut self, report: &mut Report, recorder: &Recorder) -> Result<()> {
        println!("# drivers");
        let runs = Runs {
            c: sysfs::of_driver(&recorder.c)?,
            ours: sysfs::of_driver(&recorder.ours)?,
            again: sysfs::of_driver(&recorder.c)?,
        };
        let mut test = Test::default();
        self.same(
            &mut test,
            "parameters and files",
            "drivers",
            "drivers",
            &runs,
        )?;
        report.finish("drivers", 0, test, false)
    }

    /// All of a device.
    fn device(&mut self, report: &mut Report, recorded: Recorded) -> Result<()> {
        let Recorded {
            profile,
            mode,
            parts,
            result,
        } = recorded;
        let role = profile.role;
        let name = format!("{role} {mode}");
        println!("# {name}");
        let mut fixed = Test::default();
        fixed.done("the calls are made", result);
        let of_fixed = format!("{name} fixed");
        self.same(&mut fixed, "fixed script", role, &of_fixed, &parts.fixed)?;
        report.finish(&of_fixed, 0, fixed, false)?;
        if parts.seeds.is_empty() {
            return Ok(());
        }
        let mut random = Test::default();
        for (seed, runs) in &parts.seeds {
            let what = format!("seed {seed}");
            self.same(&mut random, &what, role, &format!("{name} {what}"), runs)?;
        }
        report.finish(&format!("{name} random"), 0, random, false)
    }

    /// Asserts that the answers are the same.
    fn same(
        &mut self,
        test: &mut Test,
        what: &str,
        device: &str,
        name: &str,
        runs: &Runs,
    ) -> Result<()> {
        let comparison = runs.compare(device, &self.meant);
        test.note(format!("{what}: {comparison}"));
        let is_same = comparison.different.is_empty();
        test.check(format!("{what}: the same answers"), is_same, || {
            shown(&comparison.different)
        });
        let varies = !comparison.varying.is_empty();
        // Where nothing can be compared, nothing differs.
        test.check(
            format!("{what}: vfio-pci gives the same answers twice"),
            !varies && comparison.compared > 0,
            || shown(&comparison.varying),
        );
        if self.transcripts || !is_same || varies {
            self.write_down(&name.replace(' ', "-"), runs)?;
        }
        self.total.add(comparison);
        Ok(())
    }

    /// The differences that are meant are there.
    fn meant(&self, report: &mut Report, all: bool) -> Result<()> {
        let mut test = Test::default();
        for (meant, times) in self.meant.found() {
            let what = format!("{}, found {times} times: {}", meant.name, meant.reason);
            match (&meant.conditional, times) {
                (Some(why), 0) => test.skip(what, why),
                (None, 0) if !all => {
                    test.skip(what, "not all devices and ways to open them were tested")
                }
                _ => test.check(what, times > 0, || "nothing differs by it any more"),
            }
        }
        test.check(
            "the list of differences that are meant was read",
            true,
            || "",
        );
        report.finish("meant differences", 0, test, false)
    }

    /// Writes what was called and answered to the results.
    fn write_down(&self, name: &str, runs: &Runs) -> Result<()> {
        let directory = self.results.join("transcripts");
        fs::create_dir_all(&directory).doing(format!("making {}", directory.display()))?;
        for (entries, extension) in [
            (&runs.c, "c"),
            (&runs.ours, "ours"),
            (&runs.again, "c-again"),
        ] {
            let path = directory.join(format!("{name}.{extension}"));
            write_entries(&path, entries).doing(format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

fn write_entries(path: &Path, entries: &[Entry]) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    let (facts, calls): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        .partition(|(call, _)| call.as_fact().is_some());
    for (what, is) in facts {
        writeln!(file, "-\t{what}\t{is}")?;
    }
    // As differences are numbered.
    for (number, (call, outcome)) in calls.into_iter().enumerate() {
        writeln!(file, "{number}\t{call}\t{outcome}")?;
    }
    file.flush()
}

fn shown(differences: &[Difference]) -> String {
    let mut text = String::new();
    for difference in differences.iter().take(SHOWN) {
        text += &format!("{difference}\n");
    }
    if differences.len() > SHOWN {
        text += &format!("and {} more\n", differences.len() - SHOWN);
    }
    text
}
