// SPDX-License-Identifier: GPL-2.0

//! The benchmark: how long it takes to open and release functions, and what else the drivers do
//! differently, for the C driver and for ours, in turns.
//!
//! Each chart is measured in rounds. In each round every driver is loaded, gets the functions, does
//! one thing that is not counted, is measured, and is removed. A function is idle and asleep when
//! an open of it begins.

use std::path::PathBuf;
use std::time::Instant;

use crate::lab::Bound;
use crate::topology::Device;
use crate::topology::Topology;
use crate::vfio::User;
use crate::Error;
use crate::Result;

use drivers::Competitor;
use drivers::C;
use drivers::C_MOVED;
use drivers::C_SAME_CORE;
use drivers::GLOBAL;
use drivers::OURS;
use report::Report;

mod bus_resets;
mod charts;
mod data_path;
mod device;
pub mod drivers;
mod measure;
mod probe;
pub mod report;
mod selftest;
mod sibling;
mod timelines;
mod together;

/// What is measured, and what with.
#[derive(Debug)]
pub struct Bench {
    /// The machine's devices.
    pub topology: Topology,
    /// The drivers.
    pub drivers: Vec<Competitor>,
    /// How often everything is measured.
    pub rounds: usize,
    /// How often 8 functions are released with one bus reset.
    pub bus_reset_rounds: usize,
    /// Where the kernel's selftests are.
    pub selftests: PathBuf,
}

/// One part of the benchmark.
pub struct Chart {
    /// Its name, on the command line and in the results.
    pub name: &'static str,
    run: fn(&Bench, &mut Report) -> Result<()>,
}

/// All parts, in the order in which they are measured and shown.
pub static ALL: &[Chart] = &[
    Chart {
        name: "bus",
        run: |bench, report| charts::run(bench, report, &charts::BUS),
    },
    Chart {
        name: timelines::BUS.name,
        run: |bench, report| timelines::run(bench, report, &timelines::BUS),
    },
    Chart {
        name: "buses",
        run: |bench, report| charts::run(bench, report, &charts::BUSES),
    },
    Chart {
        name: timelines::BUSES.name,
        run: |bench, report| timelines::run(bench, report, &timelines::BUSES),
    },
    Chart {
        name: "vfs",
        run: charts::virtual_functions,
    },
    Chart {
        name: "dirty",
        run: charts::dirty,
    },
    Chart {
        name: timelines::DIRTY.name,
        run: |bench, report| timelines::run(bench, report, &timelines::DIRTY),
    },
    Chart {
        name: "scale",
        run: |bench, report| charts::run(bench, report, &charts::SCALE),
    },
    Chart {
        name: sibling::NAME,
        run: sibling::run,
    },
    Chart {
        name: probe::NAME,
        run: probe::run,
    },
    Chart {
        name: selftest::NAME,
        run: selftest::run,
    },
    Chart {
        name: bus_resets::NAME,
        run: bus_resets::run,
    },
    Chart {
        name: data_path::NAME,
        run: data_path::run,
    },
];

const EVERYBODY: &[&str] = &[C, OURS, GLOBAL];
const TWO: &[&str] = &[C, OURS];
const ALL_CORES: &[&str] = &[C, C_MOVED, C_SAME_CORE, OURS];

impl Chart {
    /// Measures it.
    pub fn run(&self, bench: &Bench, report: &mut Report) -> Result<()> {
        (self.run)(bench, report).map_err(|e| Error::new(format!("{}: {e}", self.name)))
    }
}

impl Bench {
    /// Looks whether every driver is there, with the core that it needs.
    pub fn check(&self) -> Result<()> {
        for competitor in &self.drivers {
            let loaded = competitor.load()?;
            competitor.check_core()?;
            loaded.unload()?;
        }
        Ok(())
    }

    /// The driver of this name.
    fn competitor(&self, name: &str) -> Result<&Competitor> {
        let found = self.drivers.iter().find(|driver| driver.name == name);
        found.ok_or_else(|| Error::new(format!("there is no driver '{name}'")))
    }

    /// In each round, has each of the `drivers` loaded for some `work`, in turns.
    fn in_turns(
        &self,
        chart: &str,
        drivers: &[&str],
        mut work: impl FnMut(&Competitor) -> Result<()>,
    ) -> Result<()> {
        for round in 1..=self.rounds {
            // In each round another one is the first.
            let order = drivers.iter().cycle().skip(round - 1).take(drivers.len());
            for name in order {
                let competitor = self.competitor(name)?;
                let start = Instant::now();
                let loaded = competitor.load()?;
                work(competitor).map_err(|e| Error::new(format!("{name}: {e}")))?;
                loaded.unload()?;
                println!(
                    "{chart}, round {round} of {}: {name}, {:.1} s",
                    self.rounds,
                    start.elapsed().as_secs_f64()
                );
            }
        }
        Ok(())
    }

    /// In each round, has each of the `drivers` loaded and `functions` bound to it for some `work`.
    /// Two of them have been opened and released once before.
    fn in_turns_on(
        &self,
        chart: &str,
        drivers: &[&str],
        functions: &[Device],
        mut work: impl FnMut(&Competitor, &User) -> Result<()>,
    ) -> Result<()> {
        self.in_turns(chart, drivers, |competitor| {
            let bound = Bound::bind(competitor.driver(), functions)?;
            let user = User::with_iommufd()?;
            together::warm_up(&user, functions)?;
            work(competitor, &user)?;
            bound.release()
        })
    }

    /// The functions of this family; exactly so many.
    fn family(&self, family: &str, count: usize) -> Result<Vec<Device>> {
        let mut devices = self.topology.family(family, count)?;
        devices.truncate(count);
        Ok(devices)
    }

    /// Functions of the grid: the first `functions` of each of the first `buses`.
    fn grid(&self, buses: usize, functions: usize) -> Result<Vec<Device>> {
        let mut devices = Vec::new();
        for bus in 0..buses {
            devices.extend(self.family(&format!("grid.{bus}"), functions)?);
        }
        Ok(devices)
    }
}
