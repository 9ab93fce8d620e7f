// SPDX-License-Identifier: GPL-2.0

//! A model of the reflck with fairness, for liveness, and the replay of the driver's tracepoints
//! against it.
//!
//! Without arguments, lists the scenes. `liveness SCENE` checks one. `liveness replay [COMMAND...]`
//! runs a command, if there is one, and replays the trace of its functions, `$RESULTS/trace.txt`.

#![forbid(unsafe_code)]

mod check;
mod model;
mod replay;
mod scenes;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, io, thread};

use anyhow::{anyhow, Context, Result};
use lab::report::Report;
use lab::sysfs::Bdf;
use lab::trace::parse;

const INSTANCE: &str = "/sys/kernel/tracing/instances/replay";
const EVENTS: &str = "/sys/kernel/tracing/instances/replay/events/vfio_pci_rs";

fn main() -> Result<ExitCode> {
    let (arguments, scenes) = (Vec::from_iter(env::args().skip(1)), scenes::all());
    let Some((name, command)) = arguments.split_first() else {
        scenes.iter().for_each(|scene| println!("{}", scene.name));
        return Ok(ExitCode::SUCCESS);
    };
    if name == "replay" {
        return run(&PathBuf::from(env::var("RESULTS")?), command);
    }
    let scene = scenes.iter().find(|scene| scene.name == name).context("no such scene")?;
    let checked = scenes::check(scene);
    println!("model {name}: {}", checked.as_ref().unwrap_or_else(|run| run));
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(results: &Path, command: &[String]) -> Result<ExitCode> {
    let mut report = Report::create(results, "replay", &["replay"])?;
    report.run("replay", false, |t| {
        let trace = results.join("trace.txt");
        if let Some((program, arguments)) = command.split_first() {
            record(&trace)?;
            let status = Command::new(program).args(arguments).status()?;
            t.check("the command succeeds", status.success(), || status);
            // The pipe has no end.
            thread::sleep(Duration::from_secs(1));
        }
        let group = |function: &str| {
            let group = Bdf::parse(function).and_then(|function| function.iommu_group());
            group.unwrap_or(function.to_owned())
        };
        let events = parse(&fs::read_to_string(trace)?)?;
        let replayed = replay::replay(&events, group).map_err(|error| anyhow!(error));
        if let Some(found) = t.done("the model can do what the driver did", replayed) {
            t.note(format!("{} events, {} resets", found.0, found.1));
            let is_enough = found.0 > 50 && found.1 > 0;
            t.check("a trace with resets", is_enough, || "there are too few");
        }
        Ok(())
    });
    Ok(report.exit_code())
}

/// Records the events of all modules that are loaded from now on.
fn record(trace: &Path) -> Result<()> {
    fs::create_dir(INSTANCE).context(INSTANCE)?;
    let set = |name: &str, value: &str| fs::write(Path::new(INSTANCE).join(name), value);
    set("trace_clock", "mono")?;
    let mut pipe = File::open(Path::new(INSTANCE).join("trace_pipe"))?;
    let mut file = File::create(trace)?;
    // Removing a module clears the buffers, so they are read at once.
    thread::spawn(move || io::copy(&mut pipe, &mut file));
    thread::spawn(move || loop {
        if !Path::new(EVENTS).exists() {
            set("set_event", ":mod:vfio_pci_rs").expect("the events can be enabled");
            while !Path::new(EVENTS).exists() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(Duration::from_millis(1));
    });
    Ok(())
}
