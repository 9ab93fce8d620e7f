// SPDX-License-Identifier: GPL-2.0

//! Makes every allocation of the driver's operations fail, one after the other. Writes `faults.ktap`
//! and `faults.table` to the directory that the environment variable `RESULTS` names. The table has
//! a line an operation, of fields separated by tabs: the operation, how many allocations failed,
//! what came of them.

use std::fs;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;

use clap::Parser;
use nix::errno::Errno;
use nix::kmod::DeleteModuleFlags;
use nix::kmod::ModuleInitFlags;
use vfio_pci_rs_guest::debugfs;
use vfio_pci_rs_guest::debugfs::Domain;
use vfio_pci_rs_guest::driver::Driver;
use vfio_pci_rs_guest::error::Doing;
use vfio_pci_rs_guest::faults::FailNth;
use vfio_pci_rs_guest::faults::Operation;
use vfio_pci_rs_guest::faults::Outcomes;
use vfio_pci_rs_guest::ktap::Report;
use vfio_pci_rs_guest::ktap::Test;
use vfio_pci_rs_guest::lab::Lab;
use vfio_pci_rs_guest::topology::Device;
use vfio_pci_rs_guest::topology::Topology;
use vfio_pci_rs_guest::trace::Counts;
use vfio_pci_rs_guest::trace::Tracer;
use vfio_pci_rs_guest::vfio::Opened;
use vfio_pci_rs_guest::vfio::User;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

/// Fail each allocation of the operations of vfio_pci_rs.
#[derive(Parser)]
struct Arguments {
    /// The driver under test, by its name under /sys/bus/pci/drivers.
    #[arg(long)]
    driver: String,
    /// Only the operations whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Fail only every so many of the allocations: a sample, where there is no time for all.
    #[arg(long, default_value = "1")]
    every: NonZeroUsize,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

/// The module is inserted and initialised.
struct Init<'a> {
    lab: &'a Lab,
    path: PathBuf,
    file: Option<File>,
}

/// The module is removed.
struct Remove<'a>(&'a Lab);

/// A function is bound, while others of its bus are.
struct Probe<'a> {
    lab: &'a Lab,
    function: &'a Device,
    before: Vec<Domain>,
}

/// A function is unbound, while others of its bus are bound.
struct Unbind<'a> {
    lab: &'a Lab,
    function: &'a Device,
    others: Vec<Domain>,
}

/// A function is opened for the first time.
struct Open<'a> {
    lab: &'a Lab,
    function: &'a Device,
    user: fn() -> Result<User>,
    /// Where vfio is called to open it.
    entry: &'static str,
    before: Vec<Domain>,
    ready: Option<User>,
    opened: Option<Opened>,
}

/// A function that is open once is released.
struct Release<'a> {
    lab: &'a Lab,
    function: &'a Device,
    resets: Counts,
    before: Vec<Domain>,
    user: Option<User>,
    opened: Option<Opened>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("faults: {failed} failed");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("faults: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Where ACPI is asked which interrupt a function has, when it is enabled or disabled. Not made to fail:
/// the interpreter of ACPI uses objects that it has freed then, whichever driver the function has.
const ACPI: Option<&str> = Some("acpi_pci_irq_lookup");

/// An operation that makes no allocation, and so cannot be in want of memory.
const ALLOCATES_NOTHING: &str = "release, function level reset";

type Walk = fn(&Lab, &FailNth) -> Result<Outcomes>;

/// Each operation, and the walk through it.
const WALKS: [(&str, Walk); 9] = [
    ("module init", |lab, faults| {
        let path = module_file(&lab.driver)?;
        lab.driver.load(&[])?;
        faults.walk(&mut Init {
            lab,
            path,
            file: None,
        })
    }),
    ("probe, first function of its bus", |lab, faults| {
        probe(lab, faults, &[], &lab.topology.device("flr.0")?)
    }),
    ("probe, second function of its bus", |lab, faults| {
        probe(lab, faults, &["flr.1"], &lab.topology.device("flr.0")?)
    }),
    ("open, group and container", |lab, faults| {
        open(lab, faults, User::new, "vfio_group_fops_unl_ioctl")
    }),
    ("open, character device and iommufd", |lab, faults| {
        open(
            lab,
            faults,
            User::with_iommufd,
            "vfio_device_fops_unl_ioctl",
        )
    }),
    (ALLOCATES_NOTHING, |lab, faults| {
        let flr = Counts {
            flr: 1,
            ..Counts::default()
        };
        release(lab, faults, &[lab.topology.device("flr.0")?], flr)
    }),
    ("release, bus reset", |lab, faults| {
        let bus = Counts {
            bus: 1,
            ..Counts::default()
        };
        release(lab, faults, &lab.topology.family("bus", 2)?, bus)
    }),
    ("unbind", |lab, faults| {
        lab.driver.load(&[])?;
        let other = lab.topology.device("flr.1")?;
        let bound = lab.bind([&other])?;
        let function = lab.topology.device("flr.0")?;
        let others = domains(lab)?;
        let outcomes = faults.walk(&mut Unbind {
            lab,
            function: &function,
            others,
        })?;
        bound.release()?;
        Ok(outcomes)
    }),
    ("module exit", |lab, faults| faults.walk(&mut Remove(lab))),
];

fn run(arguments: Arguments) -> Result<usize> {
    debugfs::mount()?;
    let lab = Lab {
        driver: Driver::new(&arguments.driver),
        topology: Topology::read(&arguments.results)?,
        tracer: Tracer::start()?,
        results: arguments.results.clone(),
        rounds: 1,
    };
    lab.restore()?;
    let walks: Vec<_> = WALKS
        .iter()
        .filter(|(name, _)| name.contains(&arguments.only))
        .collect();
    let faults = FailNth::new(arguments.every.get())?;
    lab.driver.load(&[])?;
    let mut report = Report::create(&arguments.results, "faults", walks.len())?;
    let mut table = String::new();
    for (number, (name, walk)) in walks.into_iter().enumerate() {
        println!("# {name}");
        let mut test = Test::default();
        let what = "each allocation that fails is refused or tolerated, and nothing is left";
        if let Some(outcomes) = test.done(what, walk(&lab, &faults)) {
            if *name == ALLOCATES_NOTHING {
                test.eq("allocations that have failed", 0, outcomes.failed());
            } else {
                test.check("allocations have failed", outcomes.failed() > 0, || {
                    "there was none"
                });
            }
            let came = describe(&outcomes);
            test.note(format!("{} allocations failed: {came}", outcomes.failed()));
            table += &format!("{name}\t{}\t{came}\n", outcomes.failed());
            test.done("the driver works afterwards", works(&lab));
        }
        test.done("the machine is restored", lab.restore());
        report.finish(name, number as u32 + 1, test, false)?;
    }
    fs::write(arguments.results.join("faults.table"), table).doing("writing faults.table")?;
    Ok(report.failed())
}

fn probe(lab: &Lab, faults: &FailNth, bound: &[&str], function: &Device) -> Result<Outcomes> {
    lab.driver.load(&[])?;
    let others: Vec<Device> = bound
        .iter()
        .map(|role| lab.topology.device(role))
        .collect::<Result<_>>()?;
    let others = lab.bind(&others)?;
    let before = domains(lab)?;
    let outcomes = faults.walk(&mut Probe {
        lab,
        function,
        before,
    })?;
    others.release()?;
    Ok(outcomes)
}

fn open(
    lab: &Lab,
    faults: &FailNth,
    user: fn() -> Result<User>,
    entry: &'static str,
) -> Result<Outcomes> {
    let function = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let bound = lab.bind([&function])?;
    let mut operation = Open {
        lab,
        function: &function,
        user,
        entry,
        before: domains(lab)?,
        ready: None,
        opened: None,
    };
    let outcomes = faults.walk(&mut operation)?;
    bound.release()?;
    Ok(outcomes)
}

/// The first of `functions` is released, and nothing else in its domain is in use.
fn release(lab: &Lab, faults: &FailNth, functions: &[Device], resets: Counts) -> Result<Outcomes> {
    lab.driver.load(&[])?;
    let bound = lab.bind(functions)?;
    let mut operation = Release {
        lab,
        function: &functions[0],
        resets,
        before: Vec::new(),
        user: None,
        opened: None,
    };
    let outcomes = faults.walk(&mut operation)?;
    bound.release()?;
    Ok(outcomes)
}

impl Operation for Init<'_> {
    fn within(&self) -> &'static str {
        "do_one_initcall"
    }

    /// The driver core calls it invalid that it could not make the directory `drivers` of a module
    /// (`module_add_driver()`), whichever driver it is.
    fn refusals(&self) -> &'static [Errno] {
        &[Errno::ENOMEM, Errno::EINVAL]
    }

    fn prepare(&mut self) -> Result<()> {
        self.lab.driver.unload()?;
        self.file = Some(File::open(&self.path).doing(self.path.display())?);
        Ok(())
    }

    fn perform(&mut self) -> Result<()> {
        let file = self.file.as_ref().ok_or_else(|| Error::new("no module"))?;
        nix::kmod::finit_module(file, c"", ModuleInitFlags::empty())
            .map_err(|e| Error::io("inserting the module", e.into()))
    }

    fn undone(&mut self) -> Result<()> {
        holds(
            self.lab.driver.references()?.is_none(),
            "the module is still there",
        )?;
        holds(
            !self.lab.driver.registered(),
            "the driver is still registered",
        )?;
        holds(
            !self.lab.driver.has_debugfs(),
            "its directory in debugfs is still there",
        )
    }

    fn done(&mut self) -> Result<()> {
        holds(self.lab.driver.registered(), "the driver is not registered")?;
        self.lab.driver.unload()?;
        self.undone()
    }
}

impl Operation for Remove<'_> {
    fn within(&self) -> &'static str {
        "__x64_sys_delete_module"
    }

    fn prepare(&mut self) -> Result<()> {
        self.0.driver.load(&[])
    }

    fn perform(&mut self) -> Result<()> {
        let name = std::ffi::CString::new(self.0.driver.module());
        let name = name.map_err(|_| Error::new("the module's name has a zero byte in it"))?;
        nix::kmod::delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
            .map_err(|e| Error::io("removing the module", e.into()))
    }

    fn undone(&mut self) -> Result<()> {
        holds(
            self.0.driver.registered(),
            "the driver is not registered any more",
        )
    }

    fn done(&mut self) -> Result<()> {
        holds(
            self.0.driver.references()?.is_none(),
            "the module is still there",
        )?;
        holds(
            !self.0.driver.registered(),
            "the driver is still registered",
        )?;
        holds(
            !self.0.driver.has_debugfs(),
            "its directory in debugfs is still there",
        )
    }
}

impl Operation for Probe<'_> {
    fn within(&self) -> &'static str {
        "pci_device_probe"
    }

    /// When it fails, vfio core warns of the group that it has not set up (`vfio_group_release()`
    /// expects `iommu_group` to be cleared), whichever driver the device has.
    fn spared(&self) -> Option<&'static str> {
        Some("vfio_create_group")
    }

    fn prepare(&mut self) -> Result<()> {
        self.function.set_override(Some(self.lab.driver.name()))
    }

    fn perform(&mut self) -> Result<()> {
        self.function.attach(self.lab.driver.name())
    }

    fn undone(&mut self) -> Result<()> {
        holds(
            self.function.driver().is_none(),
            "the function has a driver",
        )?;
        unchanged(&self.before, &domains(self.lab)?)
    }

    fn done(&mut self) -> Result<()> {
        let listed = self.lab.listed(self.function)?;
        holds(listed, "the function is in no reset domain")?;
        self.function.release()?;
        self.undone()
    }
}

impl Operation for Unbind<'_> {
    fn within(&self) -> &'static str {
        "pci_device_remove"
    }

    fn spared(&self) -> Option<&'static str> {
        ACPI
    }

    fn prepare(&mut self) -> Result<()> {
        self.function.bind(self.lab.driver.name())
    }

    fn perform(&mut self) -> Result<()> {
        self.function.unbind()
    }

    fn undone(&mut self) -> Result<()> {
        Err(Error::new("the function was not unbound"))
    }

    fn done(&mut self) -> Result<()> {
        holds(
            self.function.driver().is_none(),
            "the function has a driver",
        )?;
        unchanged(&self.others, &domains(self.lab)?)
    }
}

impl Operation for Open<'_> {
    fn within(&self) -> &'static str {
        self.entry
    }

    fn spared(&self) -> Option<&'static str> {
        ACPI
    }

    fn prepare(&mut self) -> Result<()> {
        self.ready = Some((self.user)()?);
        Ok(())
    }

    fn perform(&mut self) -> Result<()> {
        let user = self.ready.as_ref().ok_or_else(|| Error::new("no user"))?;
        self.opened = Some(user.open(self.function)?);
        Ok(())
    }

    fn undone(&mut self) -> Result<()> {
        self.ready = None;
        unchanged(&self.before, &domains(self.lab)?)?;
        let power = self.function.wait_power_state("D3hot")?;
        holds(power == "D3hot", format!("the function is in {power}"))
    }

    fn done(&mut self) -> Result<()> {
        let domain = debugfs::domain_of(&self.lab.driver.module(), self.function)?;
        let state = domain
            .and_then(|domain| Some(domain.member(self.function)?.state.clone()))
            .unwrap_or_default();
        holds(state == "open", format!("the function is '{state}'"))?;
        let power = self.function.power_state()?;
        holds(power == "D0", format!("the function is in {power}"))?;
        self.opened = None;
        self.undone()
    }
}

impl Operation for Release<'_> {
    fn within(&self) -> &'static str {
        "vfio_device_fops_release"
    }

    fn spared(&self) -> Option<&'static str> {
        ACPI
    }

    fn prepare(&mut self) -> Result<()> {
        let user = User::new()?;
        self.before = domains(self.lab)?;
        self.opened = Some(user.open(self.function)?);
        self.user = Some(user);
        self.lab.tracer.mark()
    }

    fn perform(&mut self) -> Result<()> {
        self.opened = None;
        Ok(())
    }

    fn undone(&mut self) -> Result<()> {
        Err(Error::new("a release is not refused"))
    }

    fn done(&mut self) -> Result<()> {
        let resets = self.lab.tracer.calls()?.counts();
        holds(resets == self.resets, format!("the resets were {resets}"))?;
        self.user = None;
        let mut expected = self.before.clone();
        for domain in &mut expected {
            domain.resets += self.resets.bus as u64;
        }
        unchanged(&expected, &domains(self.lab)?)?;
        let power = self.function.wait_power_state("D3hot")?;
        holds(power == "D3hot", format!("the function is in {power}"))
    }
}

/// Whether a function is reset as it is opened and released, and idle afterwards.
fn works(lab: &Lab) -> Result<()> {
    let function = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let bound = lab.bind([&function])?;
    let before = domains(lab)?;
    let (opened, at_open) = lab.tracer.count(|| User::new()?.open(&function))?;
    let at_release = lab.release(opened)?;
    for (calls, when) in [(at_open, "open"), (at_release, "release")] {
        let counts = calls.counts();
        let expected = Counts {
            flr: 1,
            ..Counts::default()
        };
        holds(counts == expected, format!("resets at {when}: {counts}"))?;
    }
    unchanged(&before, &domains(lab)?)?;
    bound.release()
}

/// The reset domains, without a driver that shows them none.
fn domains(lab: &Lab) -> Result<Vec<Domain>> {
    debugfs::domains(&lab.driver.module())
}

fn unchanged(before: &[Domain], after: &[Domain]) -> Result<()> {
    holds(
        before == after,
        format!("reset domains are {after:?} and should be {before:?}"),
    )
}

fn holds(holds: bool, otherwise: impl Into<String>) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::new(otherwise))
    }
}

/// Where the module's file is.
fn module_file(driver: &Driver) -> Result<PathBuf> {
    let output = Command::new("modinfo")
        .args(["--field", "filename", &driver.module()])
        .output()
        .doing("running modinfo")?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    holds(
        path.is_file(),
        format!("modinfo names no file: {}", path.display()),
    )?;
    Ok(path)
}

/// In words: how often which errno, and how often none.
fn describe(outcomes: &Outcomes) -> String {
    let mut came: Vec<String> = outcomes
        .refused
        .iter()
        .map(|(errno, times)| format!("{:?} {times} times", Errno::from_raw(*errno)))
        .collect();
    if outcomes.tolerated > 0 {
        came.push(format!("done all the same {} times", outcomes.tolerated));
    }
    if came.is_empty() {
        came.push("it makes none".to_owned());
    }
    came.join(", ")
}
