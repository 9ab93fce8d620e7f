// SPDX-License-Identifier: GPL-2.0

//! Runs the scenarios on one driver. Writes `scenarios.ktap` and `scenarios.observed` to the
//! directory that the environment variable `RESULTS` names.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vfio_pci_rs_guest::debugfs;
use vfio_pci_rs_guest::driver::Driver;
use vfio_pci_rs_guest::ktap::Report;
use vfio_pci_rs_guest::lab::Lab;
use vfio_pci_rs_guest::scenarios;
use vfio_pci_rs_guest::scenarios::Scenario;
use vfio_pci_rs_guest::topology::Topology;
use vfio_pci_rs_guest::trace::Tracer;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

/// Run the guest scenarios on a vfio-pci driver.
#[derive(Parser)]
struct Arguments {
    /// The driver under test, by its name under /sys/bus/pci/drivers.
    #[arg(long)]
    driver: String,
    /// Run only the scenarios of these numbers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<u32>,
    /// Do what may go differently each time this often; fewer where a checker makes it slow.
    #[arg(long, default_value = "20")]
    rounds: NonZeroUsize,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("scenarios: {failed} failed");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("scenarios: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<usize> {
    let chosen = choose(&arguments.only)?;
    debugfs::mount()?;
    let lab = Lab {
        driver: Driver::new(&arguments.driver),
        topology: Topology::read(&arguments.results)?,
        tracer: Tracer::start()?,
        results: arguments.results.clone(),
        rounds: arguments.rounds.get(),
    };
    lab.restore()?;
    let mut report = Report::create(&arguments.results, "scenarios", chosen.len())?;
    for scenario in chosen {
        scenario.record(&lab, &mut report)?;
    }
    Ok(report.failed())
}

fn choose(only: &[u32]) -> Result<Vec<&'static Scenario>> {
    if let Some(unknown) = only
        .iter()
        .find(|n| !scenarios::ALL.iter().any(|s| s.number == **n))
    {
        return Err(Error::new(format!("there is no scenario {unknown}")));
    }
    let chosen = scenarios::ALL
        .iter()
        .filter(|s| only.is_empty() || only.contains(&s.number));
    Ok(chosen.collect())
}
