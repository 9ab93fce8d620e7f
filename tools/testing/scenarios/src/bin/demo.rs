// SPDX-License-Identifier: GPL-2.0

//! The guest's half of `make demo`: a QEMU does I/O through assigned functions, and measurements.
//! Writes `demo.events.jsonl`, with notes for the terminal and an observation for each result, and
//! `bench.json` if it compares both drivers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use guest::bench::{qemu, Bench, OURS};
use guest::qemu::{Access, Qemu, LIMIT};
use guest::registers::{find, Content};
use guest::scenarios::{leave_beside_stranger, lost_together};
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::{Report, Test};
use lab::wait;

/// Show why to use a vfio-pci driver: I/O by a QEMU, resets, and times.
#[derive(Parser)]
struct Arguments {
    /// The driver, by its name under /sys/bus/pci/drivers.
    #[arg(long, default_value = OURS)]
    driver: String,
    /// Directory with the module set c; measures both drivers in turns.
    #[arg(long)]
    sets: Option<PathBuf>,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

type Run = fn(&Lab, &mut Test<'_>) -> Result<()>;

const TESTS: [(&str, Run); 3] = [("boot", boot), ("together", together), ("stranger", stranger)];
const TIMES: &str = "times";
const ROUNDS: usize = 3;

/// The firmware's console is the serial port. iPXE is the NIC's ROM, and no other function's.
const BOOT: &str = "-machine graphics=off -serial stdio -global vfio-pci.romfile=pxe-e1000e.rom";
/// The first words of the line on the disk, and of the one with the NIC's address.
const LINE: &str = "Read from the disk: ";
const ADDRESS: &str = "net0: ";
/// The first words of all lines that are worth a note.
const SHOWN: [&str; 5] = ["SeaBIOS", "Booting from ", LINE, "iPXE 1", ADDRESS];

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut tests = TESTS.map(|(name, _)| name).to_vec();
    tests.extend(arguments.sets.is_some().then_some(TIMES));
    let mut report = Report::create(&arguments.results, "demo", &tests)?;
    let lab = Lab::new(&arguments.driver, &arguments.results, 1)?;
    for (name, run) in TESTS {
        report.run(name, false, |t| {
            t.complete("runs to its end", |t| run(&lab, t));
            t.done("the machine is restored", lab.restore());
            Ok(())
        });
    }
    // The benchmark has a tracer of its own.
    drop(lab);
    if let Some(sets) = &arguments.sets {
        report.run(TIMES, false, |t| {
            let times = times(&arguments.results, sets, t);
            t.done("QEMU with 8 functions of one bus is timed", times);
            Ok(())
        });
    }
    Ok(report.exit_code())
}

/// A QEMU boots from an assigned NVMe disk, and then from an assigned NIC.
fn boot(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load_as_is(&[])?;
    let devices = lab.topology.devices(["disk", "nic"])?;
    let bound = lab.bind(&devices)?;
    for device in &devices {
        t.note(format!("{device} is bound to {}", lab.driver.name()));
    }
    let arguments: Vec<_> = BOOT.split(' ').collect();
    let start = Qemu::start(Access::Groups, &devices, &lab.results, "boot", &arguments);
    let qemu = start?;
    let console = || -> Result<Vec<String>> {
        let text = fs::read(lab.results.join("boot.log")).context("boot.log")?;
        Ok(printed(&String::from_utf8_lossy(&text)))
    };
    let has_address = |lines: &Result<Vec<String>>| match lines {
        // The last line may be incomplete.
        Ok(lines) => lines.iter().rev().skip(1).any(|line| address(line).is_some()),
        Err(_) => true,
    };
    // iPXE takes half a minute on a machine without other work.
    let lines = wait::until(2 * LIMIT, console, has_address)?;
    for line in &lines {
        if SHOWN.iter().any(|start| line.starts_with(start)) {
            t.note(format!("    {line}"));
        }
    }
    let status = qemu.quit()?;
    ensure!(status.success(), "QEMU ended with {status}");
    let line = lines.iter().find_map(|line| line.strip_prefix(LINE));
    let address = lines.iter().find_map(|line| address(line));
    for (key, got) in [("line", line), ("address", address)] {
        t.check(format!("{key} by DMA"), got.is_some(), || "there is none");
        t.observe(key, got.unwrap_or("none"));
    }
    lab.wait_unreferenced()?;
    bound.release()
}

/// Returns the lines on a console, without escape sequences and text that was erased.
fn printed(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => {
                // ESC [ ... LETTER, or ESC LETTER.
                let end = |c: &char| c.is_ascii_alphabetic();
                characters.find(end);
            }
            '\x08' => drop(plain.pop()),
            '\r' => {}
            other => plain.push(other),
        }
    }
    let lines = plain.lines().map(str::trim_end);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Returns the address in a line of iPXE: `net0: 10.0.2.15/255.255.255.0 gw 10.0.2.2`.
fn address(line: &str) -> Option<&str> {
    let (address, rest) = line.strip_prefix(ADDRESS)?.split_once('/')?;
    (address.parse::<std::net::Ipv4Addr>().is_ok() && rest.contains(" gw ")).then_some(address)
}

/// VFs that are closed together, and reset in their close() as with vfio-pci.
fn together(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    let (due, lost) = lost_together(lab, t)?;
    t.observe("lost", lost);
    t.note(format!("7 VFs closed together, 7 times: {lost} of {due} resets lost"));
    Ok(())
}

/// A function whose bus must not be reset when it is closed, and may be reset later.
fn stranger(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab::driver::modprobe("pci_stub", &[])?;
    lab.driver.load_as_is(&[])?;
    let [a, b, c] = lab.topology.devices(["bus.a", "bus.b", "bus.c"])?;
    let mut log = Mark::here()?;
    leave_beside_stranger(lab, [&a, &b, &c])?;
    lab.wait_idle(&a)?;
    t.note(format!("{a} is used and closed while {c} has another driver:"));
    c.bind(lab.driver.name())?;
    let found = match find(&a)? {
        Content::LEFT => "its last user's value".to_owned(),
        other => other.to_string(),
    };
    // These two are the PCI core's, and without a reason.
    let is_routine = |line: &str| line.ends_with(": resetting") || line.ends_with(": reset done");
    let mut lines = log.lines_with(&[lab.driver.name(), a.bus()])?;
    lines.retain(|line| !is_routine(line));
    for line in &lines {
        t.note(format!("    {line}"));
    }
    t.note(format!("its next user finds {found} in a register"));
    t.observe("found", found);
    t.observe("log", lines.len());
    Ok(())
}

/// Times a QEMU with eight functions, the drivers in turns.
fn times(results: &Path, sets: &Path, t: &mut Test<'_>) -> Result<()> {
    t.note("QEMU is started and stopped with 8 functions, the drivers in turns");
    let mut bench = Bench::new(results.to_owned(), sets, PathBuf::new(), ROUNDS)?;
    qemu::by_groups(&mut bench)?;
    bench.write("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console() {
        let text = "\x1bc\x1b[?7l\x1b[0mSeaBIOS\r\n\nCtrl-B...\x08 \x08\x08 \x08\r\n\x1b[0;1mnet0\x1b[0m: x\n";
        assert_eq!(printed(text), ["SeaBIOS", "Ctrl-B.", "net0: x"]);
    }

    #[test]
    fn addresses() {
        let line = "net0: 10.0.2.15/255.255.255.0 gw 10.0.2.2";
        assert_eq!(address(line), Some("10.0.2.15"));
        for line in
            ["net0: fec0::5054:ff:fe12:3456/64 gw fe80::2", "net0: 10.0.2.15/255.25", "net0: open"]
        {
            assert_eq!(address(line), None, "{line}");
        }
    }
}
