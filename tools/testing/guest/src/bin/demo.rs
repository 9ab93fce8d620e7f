// SPDX-License-Identifier: GPL-2.0

//! The guest's half of `make demo`: one driver's life with a real QEMU, step by step. The steps
//! go to stdout and to `demo.steps`, what was observed to `demo.observed` as `key value` lines,
//! both in the directory that the environment variable `RESULTS` names.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use vfio_pci_rs_guest::debugfs;
use vfio_pci_rs_guest::driver::Driver;
use vfio_pci_rs_guest::error::Doing;
use vfio_pci_rs_guest::qemu::Qemu;
use vfio_pci_rs_guest::topology::Device;
use vfio_pci_rs_guest::topology::Topology;
use vfio_pci_rs_guest::trace::Tracer;
use vfio_pci_rs_guest::wait;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

/// Show a vfio-pci driver at its main job: bind, open from QEMU, release, reset, D3hot.
#[derive(Parser)]
struct Arguments {
    /// The driver, by its name under /sys/bus/pci/drivers.
    #[arg(long)]
    driver: String,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(unexpected) => {
            eprintln!("demo: {unexpected} observations are not as expected");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("demo: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What is shown and recorded on the way.
struct Show {
    start: Instant,
    steps: File,
    observed: File,
    unexpected: usize,
}

impl Show {
    fn create(results: &Path) -> Result<Self> {
        let create = |name: &str| {
            let path = results.join(name);
            File::create(&path).doing(format!("creating {}", path.display()))
        };
        Ok(Show {
            start: Instant::now(),
            steps: create("demo.steps")?,
            observed: create("demo.observed")?,
            unexpected: 0,
        })
    }

    /// One line, with the time since the beginning.
    fn step(&mut self, text: impl Display) -> Result<()> {
        let line = format!("[{:5.1} s] {text}", self.start.elapsed().as_secs_f64());
        self.line(&line)
    }

    /// Text that belongs to the last step.
    fn detail(&mut self, text: &str) -> Result<()> {
        text.lines()
            .try_for_each(|line| self.line(&format!("            {line}")))
    }

    fn line(&mut self, line: &str) -> Result<()> {
        println!("{line}");
        writeln!(self.steps, "{line}").doing("writing demo.steps")
    }

    fn observe(&mut self, key: &str, value: impl Display) -> Result<()> {
        writeln!(self.observed, "{key} {value}").doing("writing demo.observed")
    }

    /// An observation for which there is but one right value.
    fn expect<T: PartialEq + Display>(
        &mut self,
        key: &str,
        what: impl Display,
        expected: T,
        got: T,
    ) -> Result<()> {
        self.observe(key, &got)?;
        if got == expected {
            self.step(format!("{what}: {got}"))
        } else {
            self.unexpected += 1;
            self.step(format!("{what}: {got}, expected {expected}"))
        }
    }
}

fn run(arguments: &Arguments) -> Result<usize> {
    let results = &arguments.results;
    let driver = Driver::new(&arguments.driver);
    let topology = Topology::read(results)?;
    let devices = topology.family("qemu", 2)?;
    debugfs::mount()?;
    let tracer = Tracer::start()?;
    let mut show = Show::create(results)?;

    show.observe("driver", driver.name())?;
    driver.load(&[])?;
    show.step(format!("modprobe {}", driver.module()))?;
    let outcome = with_driver(&mut show, &driver, &devices, &tracer, results);
    // In any case, or the module stays; but an error on the way here is the one to report.
    let unbound = devices.iter().try_for_each(|device| device.release());
    outcome?;
    unbound?;
    show.step("both functions unbound")?;

    let references = driver.references()?.unwrap_or(0);
    show.expect("references", "the module's reference count", 0, references)?;
    driver.unload()?;
    show.step(format!("rmmod {}", driver.module()))?;
    Ok(show.unexpected)
}

/// From the first bind to the last release.
fn with_driver(
    show: &mut Show,
    driver: &Driver,
    devices: &[Device],
    tracer: &Tracer,
    results: &Path,
) -> Result<()> {
    tracer.mark()?;
    for device in devices {
        device.bind(driver.name())?;
        show.step(format!(
            "{device} bound to {} by driver_override",
            driver.name()
        ))?;
    }
    show_domain(show, driver, &devices[0])?;
    power(show, devices, "before", "D3hot")?;

    let start = Instant::now();
    let mut qemu = Qemu::start(devices, results, "demo-qemu")?;
    show.step("QEMU started with both functions assigned")?;
    let seen = qemu.wait_seen(devices.len())?;
    show.observe(
        "qemu_ready_seconds",
        format!("{:.1}", start.elapsed().as_secs_f64()),
    )?;
    show.step("QEMU's firmware has found them and set up their BARs:")?;
    let mut same = 0;
    for (device, seen) in devices.iter().zip(&seen) {
        let (vendor, id) = seen.ids;
        show.detail(&format!(
            "{device}: {vendor:04x}:{id:04x}, {} BARs",
            seen.bars
        ))?;
        same += usize::from(device.id()? == (format!("{vendor:04x}"), format!("{id:04x}")));
    }
    show.expect(
        "seen_by_firmware",
        "functions that it sees under their own IDs",
        devices.len(),
        same,
    )?;
    power(show, devices, "during", "D0")?;
    show_domains_text(show, driver)?;

    let calls = tracer.calls()?;
    let before = calls.by_driver().bus_or_slot();
    show.expect(
        "resets_before_release",
        "bus resets by the driver so far",
        0,
        before,
    )?;

    // QEMU may reset the bus itself, with VFIO_DEVICE_PCI_HOT_RESET; that is its own affair.
    let by_qemu_before = calls.asked_by_user().bus_or_slot();
    tracer.mark()?;
    let status = qemu.quit()?;
    show.step(format!("QEMU has quit ({status})"))?;
    wait::until(
        wait::SETTLE,
        || driver.references(),
        |r| matches!(r, Ok(Some(0))),
    )?;
    power(show, devices, "after", "D3hot")?;

    let calls = tracer.calls()?;
    let by_qemu = by_qemu_before + calls.asked_by_user().bus_or_slot();
    show.observe("resets_asked_by_qemu", by_qemu)?;
    show.step(format!("bus resets that QEMU asked for itself: {by_qemu}"))?;
    let at_release = calls.at_release().bus_or_slot();
    show.expect(
        "resets_at_release",
        "bus resets at the last release",
        1,
        at_release,
    )?;
    let elsewhere = calls.by_driver().bus_or_slot() - at_release;
    show.expect(
        "resets_elsewhere",
        "bus resets by the driver at any other time",
        0,
        elsewhere,
    )?;
    if driver.shows_domains() {
        show_domains_text(show, driver)?;
        let domain = domain(driver, &devices[0])?;
        show.expect(
            "dirty_after",
            "functions that still need a reset",
            0,
            domain.dirty(),
        )?;
    }
    Ok(())
}

fn domain(driver: &Driver, device: &Device) -> Result<debugfs::Domain> {
    debugfs::domain_of(&driver.module(), device)?
        .ok_or_else(|| Error::new(format!("{device} is in no reset domain")))
}

/// Records the reset domain of the functions, if the driver shows it.
fn show_domain(show: &mut Show, driver: &Driver, device: &Device) -> Result<()> {
    if !driver.shows_domains() {
        return show.observe("domain", "not shown");
    }
    show_domains_text(show, driver)?;
    let domain = domain(driver, device)?;
    let shown = format!(
        "{} {}, {} functions",
        domain.kind,
        domain.name,
        domain.members.len()
    );
    let expected = format!("bus {}, 2 functions", device.bus());
    show.expect("domain", "reset domain", expected, shown)
}

fn show_domains_text(show: &mut Show, driver: &Driver) -> Result<()> {
    if !driver.shows_domains() {
        return Ok(());
    }
    show.step(format!(
        "/sys/kernel/debug/{}/reset_domains:",
        driver.module()
    ))?;
    show.detail(&debugfs::text(&driver.module())?)
}

fn power(show: &mut Show, devices: &[Device], when: &str, expected: &str) -> Result<()> {
    for device in devices {
        let key = format!("power_{when}_{}", device.role());
        let got = device.wait_power_state(expected)?;
        show.expect(
            &key,
            format!("power state of {device}"),
            expected.to_owned(),
            got,
        )?;
    }
    Ok(())
}
