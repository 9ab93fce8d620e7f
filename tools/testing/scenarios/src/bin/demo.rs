// SPDX-License-Identifier: GPL-2.0

//! The guest's half of `make demo`: a driver's life with a real QEMU. Writes `demo.events.jsonl`:
//! a note for each step, with its time, and an observation for each row of the table.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use guest::qemu::Qemu;
use lab::debugfs;
use lab::machine::Lab;
use lab::report::{Report, Test};
use lab::topology::Device;

/// Show a vfio-pci driver's main job: bind, open from QEMU, close, reset, D3hot.
#[derive(Parser)]
struct Arguments {
    /// The driver, by its name under /sys/bus/pci/drivers.
    #[arg(long, default_value = "vfio_pci_rs")]
    driver: String,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

struct Demo<'a, 'b> {
    lab: &'a Lab,
    t: &'a mut Test<'b>,
    start: Instant,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let lab = Lab::new(&arguments.driver, &arguments.results, 1)?;
    let mut report = Report::create(&arguments.results, "demo", &["demo"])?;
    report.run("demo", false, |t| {
        let start = Instant::now();
        let lab = &lab;
        Demo { lab, t, start }.run()
    });
    Ok(report.exit_code())
}

impl Demo<'_, '_> {
    fn run(&mut self) -> Result<()> {
        let driver = &self.lab.driver;
        let devices = self.lab.topology.family("qemu", 2)?;
        self.t.observe("driver", driver.name());
        driver.load(&[])?;
        self.step(format!("modprobe {}", driver.module()));
        self.lab.tracer.mark()?;
        let bound = self.lab.bind(&devices)?;
        for device in &devices {
            let name = driver.name();
            self.step(format!("{device} bound to {name} by driver_override"));
        }
        self.with_qemu(&devices)?;
        bound.release()?;
        self.step("both functions unbound");

        let references = driver.references()?.unwrap_or(0);
        self.expect("references", "the module's reference count", 0, references);
        driver.unload()?;
        self.step(format!("rmmod {}", driver.module()));
        Ok(())
    }

    fn with_qemu(&mut self, devices: &[Device]) -> Result<()> {
        let lab = self.lab;
        self.domain(devices)?;
        self.power(devices, "before", "D3hot")?;
        let start = Instant::now();
        let mut qemu = Qemu::start(devices, &lab.results, "demo-qemu")?;
        self.step("QEMU started with both functions assigned");
        let seen = qemu.wait_seen(devices.len())?;
        let ready = start.elapsed().as_secs_f64();
        self.t.observe("qemu_ready_seconds", format!("{ready:.1}"));
        self.step("QEMU's firmware has found them and set up their BARs:");
        let mut same = 0;
        for (device, seen) in devices.iter().zip(&seen) {
            let (vendor, id) = (format!("{:04x}", seen.ids.0), format!("{:04x}", seen.ids.1));
            let bars = seen.bars;
            self.t
                .note(format!("        {device}: {vendor}:{id}, {bars} BARs"));
            same += usize::from(device.id()? == (vendor, id));
        }
        let what = "functions that it sees under their own IDs";
        self.expect("seen_by_firmware", what, devices.len(), same);
        self.power(devices, "during", "D0")?;
        self.show_domains()?;

        let calls = lab.tracer.calls()?;
        let what = "bus resets by the driver before the last close";
        let by_driver = calls.by_driver().bus_or_slot();
        self.expect("resets_before_release", what, 0, by_driver);

        // QEMU may reset the bus itself, with VFIO_DEVICE_PCI_HOT_RESET.
        let by_qemu_before = calls.asked_by_user().bus_or_slot();
        lab.tracer.mark()?;
        let status = qemu.quit()?;
        self.step(format!("QEMU has quit ({status})"));
        lab.wait_unreferenced()?;
        self.power(devices, "after", "D3hot")?;

        let calls = lab.tracer.calls()?;
        let by_qemu = by_qemu_before + calls.asked_by_user().bus_or_slot();
        self.t.observe("resets_asked_by_qemu", by_qemu);
        self.step(format!("bus resets that QEMU requested: {by_qemu}"));
        let at_close = calls.at_release().bus_or_slot();
        let what = "bus resets at the last close";
        self.expect("resets_at_release", what, 1, at_close);
        let elsewhere = calls.by_driver().bus_or_slot() - at_close;
        let what = "bus resets by the driver at any other time";
        self.expect("resets_elsewhere", what, 0, elsewhere);
        if let Some(domain) = self.show_domains()? {
            let what = "functions that still need a reset";
            self.expect("dirty_after", what, 0, domain.dirty());
        }
        Ok(())
    }

    /// Shows the reset domain of the functions, if the driver does.
    fn domain(&mut self, devices: &[Device]) -> Result<()> {
        let Some(domain) = self.show_domains()? else {
            self.t.observe("domain", "not shown");
            return Ok(());
        };
        let functions = domain.members.len();
        let shown = format!("{} {}, {functions} functions", domain.kind, domain.name);
        let expected = format!("bus {}, 2 functions", devices[0].bus());
        self.expect("domain", "reset domain", expected, shown);
        Ok(())
    }

    /// Shows the reset domains, if the driver does. Returns the first one.
    fn show_domains(&mut self) -> Result<Option<debugfs::Domain>> {
        if !self.lab.driver.shows_domains() {
            return Ok(None);
        }
        self.step(format!("{}:", debugfs::FILE));
        for line in debugfs::text()?.lines() {
            self.t.note(format!("        {line}"));
        }
        let mut domains = self.lab.domains()?.into_iter();
        Ok(Some(domains.next().context("there is no reset domain")?))
    }

    fn power(&mut self, devices: &[Device], when: &str, expected: &str) -> Result<()> {
        for device in devices {
            let got = device.wait_power_state(expected)?;
            let key = format!("power_{when}_{}", device.role());
            self.expect(&key, format!("power state of {device}"), expected, &got);
        }
        Ok(())
    }

    /// An observation with one right value.
    fn expect<T>(&mut self, key: &str, what: impl Display, expected: T, got: T)
    where
        T: PartialEq + Display,
    {
        self.t.observe(key, &got);
        self.t.eq(format!("{what}: {got}"), expected, got);
    }

    fn step(&mut self, text: impl Display) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.t.note(format!("[{seconds:5.1} s] {text}"));
    }
}
