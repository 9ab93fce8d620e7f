// SPDX-License-Identifier: GPL-2.0

//! Makes the report of a benchmark: `benchmark.md` and the SVG pictures that it shows, in one
//! directory, from the `benchmark.json` that the guest wrote.
//!
//! The status is 0 whether the targets are met or not: they are in the report for a person to
//! read. It is 1 if there is no report, because the input is not as it should be or the output
//! cannot be written.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vfio_pci_rs_bench_report::model::Benchmark;
use vfio_pci_rs_bench_report::report;
use vfio_pci_rs_bench_report::Error;
use vfio_pci_rs_bench_report::Result;

/// Make a readable report of what a benchmark measured.
#[derive(Parser)]
struct Arguments {
    /// The benchmark.json that the guest wrote.
    #[arg(long)]
    input: PathBuf,
    /// Directory of the report, made if it is not there. Files of the same names are replaced.
    #[arg(long)]
    output: PathBuf,
    /// What the guest cannot tell about the machine, such as how it is virtualised.
    #[arg(long)]
    note: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-report: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let input = &arguments.input;
    let text = fs::read_to_string(input)
        .map_err(|e| Error::new(format!("reading {}: {e}", input.display())))?;
    let benchmark = Benchmark::parse(&text)
        .map_err(|e| Error::new(format!("{} is malformed: {e}", input.display())))?;
    let files = report(&benchmark, arguments.note.as_deref())?;

    let output = &arguments.output;
    fs::create_dir_all(output)
        .map_err(|e| Error::new(format!("creating {}: {e}", output.display())))?;
    for file in files {
        let path = output.join(&file.name);
        fs::write(&path, &file.text)
            .map_err(|e| Error::new(format!("writing {}: {e}", path.display())))?;
    }
    Ok(())
}
