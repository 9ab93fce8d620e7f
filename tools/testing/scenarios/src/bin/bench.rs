// SPDX-License-Identifier: GPL-2.0

//! Measures the time to open and close functions, with vfio-pci and with ours. Writes `bench.json`
//! (see `guest::bench`).

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use guest::bench::containers::{container, CONTAINER};
use guest::bench::{Bench, ALL};
use guest::choose;

/// Measure the time to open and close functions, driver by driver.
#[derive(Parser)]
struct Arguments {
    /// Directory of the module sets c and global-mutex, each a root directory for modprobe.
    #[arg(long)]
    sets: PathBuf,
    /// Directory of the kernel's vfio selftests.
    #[arg(long)]
    selftests: PathBuf,
    /// Measure everything this often.
    #[arg(long, default_value = "7")]
    rounds: NonZeroUsize,
    /// Measure these parts only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The start of the names of all cases.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

fn main() -> Result<()> {
    let first = std::env::args().nth(1).unwrap_or_default();
    if let Some(address) = first.strip_prefix(&format!("--{CONTAINER}=")) {
        return container(address);
    }
    let Arguments { sets, selftests, rounds, only, prefix, results } = Arguments::parse();
    let chosen = choose(ALL, &only, &[], |part| part.name)?;
    let mut bench = Bench::new(results, &sets, selftests, rounds.get())?;
    for part in chosen {
        let start = Instant::now();
        println!("{}", part.name);
        part.run(&mut bench)?;
        println!("{}: {:.0} s", part.name, start.elapsed().as_secs_f64());
    }
    bench.write(&prefix)
}
