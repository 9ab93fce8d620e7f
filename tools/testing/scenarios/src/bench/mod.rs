// SPDX-License-Identifier: GPL-2.0

//! The benchmark: how long it takes to open and close functions with vfio-pci and with ours.
//!
//! Each part is measured in rounds. In each round, each driver is loaded, gets the functions, does
//! something that does not count, is measured, and is removed. A function is idle and asleep when
//! an open of it begins, and so known to be clean if it can be.
//!
//! `bench.json` has the results, as `Report` describes them: its `cases` have the samples
//! of each driver, one a round. A sample is an object of numbers:
//!
//! - `wall_ns`: from the start of the first function to the end of the last one;
//! - `longest_ns`: the longest time of one function;
//! - `processor_ns`: processor time of all functions (not in `selftest_*`);
//! - `machine_ns`: the same and that of work, until the functions are asleep (not in all cases);
//! - `function_resets`, `bus_resets`: the resets that were made (not in `selftest_*`);
//! - `due`, `lost`: the resets that were due, and those among them that were not made. Ours does
//!   not owe one to a clean function that is opened, and may make that of a close later;
//! - `wake_ns`: how long ours woke functions before a bus reset (only in `wake_*`);
//! - `whole_ns`, `at_open`, `by_qemu`, `at_close`, `in_background`: in `qemu_*`, the wall time with
//!   that of QEMU itself, and the function resets by their causes;
//! - `busy_ns`, `memory`: in `containers_*`, the processor time of the machine, and the bytes that the
//!   kernel has more for each function than before it was bound;
//! - `instructions`: the only one in `data_path_*`, those of one call.

use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use lab::driver::{self, Driver};
use lab::machine::Bound;
use lab::topology::{Device, Topology};
use lab::vfio::User;
use serde::Serialize;

use crate::together::open;
use measure::Sample;

pub mod containers;
mod data_path;
pub(crate) mod measure;
mod opens;
pub mod qemu;
mod wake;

/// On the core without our patches.
pub const C: &str = "vfio-pci";
pub const OURS: &str = "vfio_pci_rs";
/// Ours, with all the resets of vfio-pci, and within the same calls.
pub const AS_C: &str = "vfio_pci_rs as C";
/// The same with one mutex around every open and close, as before 2018.
pub const GLOBAL: &str = "global mutex";

/// The modules beside the driver that have the same name with and without our patches, and a symbol
/// that each has only with them.
const PATCHED: [(&str, &str); 2] = [
    ("vfio_pci_core", "vfio_pci_core_reset_devices"),
    ("vfio_iommu_type1", "vfio_iommu_type1_maps_device"),
];

/// Loads a driver with its core.
#[derive(Debug)]
struct Competitor {
    name: &'static str,
    driver: Driver,
    parameters: &'static [&'static str],
    /// The root directory of its modules, unless these are the machine's.
    modules: Option<PathBuf>,
}

/// A loaded driver. Dropping it removes its modules.
struct Loaded<'a>(&'a Competitor);

#[derive(Debug)]
pub struct Bench {
    topology: Topology,
    drivers: Vec<Competitor>,
    rounds: usize,
    /// The directory of the kernel's selftests.
    selftests: PathBuf,
    /// The directory of the results.
    results: PathBuf,
    report: Report,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    meta: Meta,
    cases: BTreeMap<String, BTreeMap<&'static str, Vec<Sample>>>,
}

#[derive(Debug, Default, Serialize)]
struct Meta {
    kernel: String,
    processors: usize,
    rounds: usize,
    drivers: Vec<&'static str>,
}

pub struct Part {
    pub name: &'static str,
    run: fn(&mut Bench) -> Result<()>,
}

const fn part(name: &'static str, run: fn(&mut Bench) -> Result<()>) -> Part {
    Part { name, run }
}

/// All parts. Each needs a topology with its functions.
pub const ALL: &[Part] = &[
    part("bus", opens::bus),
    part("thread", opens::thread),
    part("vectors", opens::vectors),
    part("selftest", opens::selftest),
    part("data_path", data_path::run),
    part("buses", opens::buses),
    part("vfs", opens::virtual_functions),
    part("dirty", opens::dirty),
    part("wake", wake::run),
    part("scale", opens::scale),
    part("probe", opens::probe),
    part("qemu", qemu::run),
    part("qemu_bus", qemu::bus),
    part("containers", containers::run),
];

impl Part {
    pub fn run(&self, bench: &mut Bench) -> Result<()> {
        (self.run)(bench).context(self.name)
    }
}

impl Competitor {
    /// Returns all drivers; `sets` has the modules of those that are not the machine's.
    fn all(sets: &Path) -> [Self; 4] {
        let ours = |name, parameters| Competitor {
            name,
            driver: Driver::new(OURS),
            parameters,
            modules: None,
        };
        let c =
            Competitor { driver: Driver::new(C), modules: Some(sets.join("c")), ..ours(C, &[]) };
        let global =
            Competitor { modules: Some(sets.join("global-mutex")), ..ours(GLOBAL, &driver::AS_C) };
        [c, ours(OURS, &[]), ours(AS_C, &driver::AS_C), global]
    }

    /// Loads the driver and the patched modules, after removing those of another competitor.
    fn load(&self) -> Result<Loaded<'_>> {
        self.unload()?;
        let load = |module: &str, parameters: &[&str]| {
            let mut modprobe = std::process::Command::new("modprobe");
            if let Some(root) = &self.modules {
                modprobe.arg("--dirname").arg(root);
            }
            driver::run(modprobe.arg(module).args(parameters))
        };
        for (module, _) in PATCHED {
            load(module, &[])?;
        }
        load(&self.driver.module(), self.parameters)?;
        Ok(Loaded(self))
    }

    /// Checks that the loaded modules are patched if the driver needs that, and only then.
    fn check_modules(&self) -> Result<()> {
        for (module, symbol) in PATCHED {
            let is_patched = driver::is_exported(symbol)?;
            let needs = self.driver.name() == OURS;
            ensure!(is_patched == needs, "{} is on the wrong {module}", self.name);
        }
        Ok(())
    }

    fn unload(&self) -> Result<()> {
        self.driver.unload()?;
        for (module, _) in PATCHED {
            if driver::references(module)?.is_none() {
                continue;
            }
            // Debian's kernel has vfio_pci_igd, which uses the core.
            let holders = format!("/sys/module/{module}/holders");
            for holder in fs::read_dir(&holders).context(holders)? {
                driver::rmmod(&holder?.file_name().to_string_lossy())?;
            }
            driver::rmmod(module)?;
        }
        Ok(())
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.0.unload() {
            eprintln!("{} was not removed: {e:#}", self.0.name);
        }
    }
}

impl Bench {
    /// Checks that all drivers that are in `sets`, or the machine's, can be loaded.
    pub fn new(results: PathBuf, sets: &Path, selftests: PathBuf, rounds: usize) -> Result<Self> {
        let mut drivers = Vec::from(Competitor::all(sets));
        drivers.retain(|driver| driver.modules.as_ref().is_none_or(|set| set.exists()));
        for competitor in &drivers {
            let _loaded = competitor.load()?;
            competitor.check_modules()?;
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
        let meta = Meta {
            kernel: kernel.trim().to_owned(),
            processors: thread::available_parallelism()?.get(),
            rounds,
            drivers: drivers.iter().map(|c| c.name).collect(),
        };
        let cases = BTreeMap::new();
        Ok(Bench {
            topology: Topology::read(&results)?,
            drivers,
            rounds,
            selftests,
            results,
            report: Report { meta, cases },
        })
    }

    /// Writes the results, with a prefix to the names of cases.
    pub fn write(mut self, prefix: &str) -> Result<()> {
        let cases = mem::take(&mut self.report.cases).into_iter();
        self.report.cases = cases.map(|(case, of)| (format!("{prefix}{case}"), of)).collect();
        let text = serde_json::to_string(&self.report)?;
        fs::write(self.results.join("bench.json"), text + "\n").context("bench.json")
    }

    /// Loads each of the `drivers` in turn for some `work`, in each round, and adds the samples of
    /// that by case.
    fn in_turns(
        &mut self,
        drivers: &[&'static str],
        work: impl Fn(&Self, &Competitor) -> Result<Vec<(String, Sample)>>,
    ) -> Result<()> {
        for round in 0..self.rounds {
            // In each round, another driver is the first.
            for &name in drivers.iter().cycle().skip(round).take(drivers.len()) {
                let start = Instant::now();
                for (case, sample) in self.with(name, &work)? {
                    let samples = self.report.cases.entry(case).or_default();
                    samples.entry(name).or_default().push(sample);
                }
                let (round, rounds) = (round + 1, self.rounds);
                let seconds = start.elapsed().as_secs_f64();
                println!("round {round} of {rounds}: {name}, {seconds:.1} s");
            }
        }
        Ok(())
    }

    /// Loads the driver `name` for some `work`.
    fn with<T>(&self, name: &str, work: impl Fn(&Self, &Competitor) -> Result<T>) -> Result<T> {
        let competitor = self.drivers.iter().find(|driver| driver.name == name);
        let competitor = competitor.with_context(|| format!("there is no driver '{name}'"))?;
        let _loaded = competitor.load()?;
        work(self, competitor).context(competitor.name)
    }

    /// The same with `functions` bound and the first two of them opened and closed once.
    fn in_turns_on(
        &mut self,
        drivers: &[&'static str],
        functions: &[Device],
        work: impl Fn(&Competitor, &User) -> Result<Vec<(String, Sample)>>,
    ) -> Result<()> {
        self.in_turns(drivers, |_, competitor| {
            let bound = Bound::bind(competitor.driver.name(), functions)?;
            let user = User::with_iommufd()?;
            let few = &functions[..functions.len().min(2)];
            drop(open(&user, few)?);
            let samples = work(competitor, &user)?;
            bound.release()?;
            Ok(samples)
        })
    }

    /// Returns the median of the wall times of all drivers in a case.
    fn median(&self, case: &str) -> Result<u64> {
        let samples = self.report.cases.get(case).into_iter();
        let samples = samples.flat_map(|drivers| drivers.values().flatten());
        let mut times: Vec<u64> = samples.map(|sample| sample["wall_ns"]).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied();
        median.with_context(|| format!("{case} was not measured"))
    }

    /// Returns exactly `count` functions of this family.
    fn family(&self, family: &str, count: usize) -> Result<Vec<Device>> {
        let mut devices = self.topology.family(family, count)?;
        devices.truncate(count);
        Ok(devices)
    }

    /// Returns the first `each` functions of each of the first `buses` of the grid.
    fn grid(&self, buses: usize, each: usize) -> Result<Vec<Device>> {
        let bus = |bus| self.family(&format!("grid.{bus}"), each);
        Ok((0..buses).map(bus).collect::<Result<Vec<_>>>()?.concat())
    }
}
