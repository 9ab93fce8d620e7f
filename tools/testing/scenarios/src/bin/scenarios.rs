// SPDX-License-Identifier: GPL-2.0

//! Runs the scenarios on one driver. Writes `scenarios.events.jsonl` (see `lab::report`).

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use guest::choose;
use guest::registers::{hold, HOLD};
use guest::scenarios::ALL;
use lab::machine::Lab;
use lab::report::Report;

/// Run the scenarios on a vfio-pci driver.
#[derive(Parser)]
struct Arguments {
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
    /// Only open this function, write to it and wait: the user for a scenario to kill.
    #[arg(long = HOLD, hide = true, value_name = "FUNCTION")]
    hold: Option<String>,
    /// The driver under test, by its name under /sys/bus/pci/drivers.
    #[arg(long, default_value = "vfio_pci_rs")]
    driver: String,
    /// Run only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run all but these.
    #[arg(long, value_delimiter = ',', conflicts_with = "only")]
    skip: Vec<String>,
    /// Repeat races this often.
    #[arg(long, default_value = "20")]
    rounds: NonZeroUsize,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(function) = arguments.hold {
        hold(&function)?;
    }
    if arguments.list {
        ALL.iter().for_each(|scenario| println!("{}", scenario.name));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(ALL, &arguments.only, &arguments.skip, |scenario| scenario.name)?;
    let results = arguments.results.context("needs --results")?;
    let lab = Lab::new(&arguments.driver, &results, arguments.rounds.get())?;
    let names: Vec<&str> = chosen.iter().map(|scenario| scenario.name).collect();
    let mut report = Report::create(&results, "scenarios", &names)?;
    for scenario in chosen {
        scenario.run(&lab, &mut report);
    }
    Ok(report.exit_code())
}
