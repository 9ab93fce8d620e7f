// SPDX-License-Identifier: GPL-2.0

//! Measures what opening and releasing functions takes, with the C driver and with ours. Writes
//! `benchmark.json` to the directory that the environment variable `RESULTS` names.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use vfio_pci_rs_guest::bench;
use vfio_pci_rs_guest::bench::drivers::Competitor;
use vfio_pci_rs_guest::bench::report::Report;
use vfio_pci_rs_guest::bench::Bench;
use vfio_pci_rs_guest::bench::Chart;
use vfio_pci_rs_guest::topology::Topology;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

/// Measure what opening and releasing functions takes, driver by driver.
#[derive(Parser)]
struct Arguments {
    /// Directory of the modules of the drivers that are not the machine's: c, c-moved, global-mutex.
    #[arg(long)]
    sets: PathBuf,
    /// Directory of the kernel's vfio selftests.
    #[arg(long)]
    selftests: PathBuf,
    /// Measure everything this often.
    #[arg(long, default_value = "7")]
    rounds: NonZeroUsize,
    /// Open and release 8 functions this often, and count the bus resets of each time.
    #[arg(long, default_value = "100")]
    bus_reset_rounds: NonZeroUsize,
    /// Measure these charts only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let chosen = choose(&arguments.only)?;
    let start = Instant::now();
    let bench = Bench {
        topology: Topology::read(&arguments.results)?,
        drivers: Competitor::all(&arguments.sets).into(),
        rounds: arguments.rounds.get(),
        bus_reset_rounds: arguments.bus_reset_rounds.get(),
        selftests: arguments.selftests.clone(),
    };
    bench.check()?;
    let mut report = Report::default();
    for chart in chosen {
        let start = Instant::now();
        chart.run(&bench, &mut report)?;
        println!("{}: {:.0} s", chart.name, start.elapsed().as_secs_f64());
    }
    report.write(&arguments.results, bench.rounds, &bench.drivers)?;
    println!("\n{}", report.table(&bench.drivers));
    println!("all of it: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn choose(only: &[String]) -> Result<Vec<&'static Chart>> {
    let known = |name: &String| bench::ALL.iter().any(|chart| chart.name == name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = bench::ALL.iter().map(|chart| chart.name).collect();
        return Err(Error::new(format!(
            "there is no chart '{unknown}'; there are {}",
            names.join(", ")
        )));
    }
    let chosen = bench::ALL
        .iter()
        .filter(|chart| only.is_empty() || only.iter().any(|name| name == chart.name));
    Ok(chosen.collect())
}
