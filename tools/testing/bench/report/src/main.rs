// SPDX-License-Identifier: GPL-2.0

//! Makes the report of a benchmark: `benchmark.md`, the SVG pictures that it shows, and the
//! `benchmark.json` that they are made of, in one directory, from what the guests wrote.
//!
//! The status is 0 whether the targets are met or not: they are in the report for a person to
//! read. It is 1 if there is no report, because the input is not as it should be or the output
//! cannot be written.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vfio_pci_rs_bench_report::merge::merge;
use vfio_pci_rs_bench_report::model::Benchmark;
use vfio_pci_rs_bench_report::report;
use vfio_pci_rs_bench_report::Error;
use vfio_pci_rs_bench_report::File;
use vfio_pci_rs_bench_report::Result;

/// Make a readable report of what a benchmark measured.
#[derive(Parser)]
struct Arguments {
    /// A benchmark.json that a guest wrote; several are made one.
    #[arg(long, required = true)]
    input: Vec<PathBuf>,
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
    let texts = arguments
        .input
        .iter()
        .map(|input| {
            fs::read_to_string(input)
                .map_err(|e| Error::new(format!("reading {}: {e}", input.display())))
        })
        .collect::<Result<Vec<_>>>()?;
    let malformed = |e| Error::new(format!("the input is malformed: {e}"));
    let merged = merge(&texts).map_err(malformed)?;
    let benchmark = Benchmark::parse(&merged).map_err(malformed)?;
    let mut files = report(&benchmark, arguments.note.as_deref())?;
    files.push(File {
        name: "benchmark.json".to_owned(),
        text: merged,
    });

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
