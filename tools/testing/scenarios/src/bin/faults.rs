// SPDX-License-Identifier: GPL-2.0

//! Fails every allocation of the driver's operations, one after the other. Each must be refused
//! with an errno and change nothing, or be tolerated. Writes `faults.events.jsonl`.

use std::cell::RefCell;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use guest::faults::{FailNth, Operation, Outcomes};
use lab::debugfs::{self, Domain};
use lab::driver;
use lab::machine::Lab;
use lab::report::Report;
use lab::resets::Counts;
use lab::topology::Device;
use lab::vfio::{Opened, User};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

/// Fail each allocation of the operations of vfio_pci_rs.
#[derive(Parser)]
struct Arguments {
    /// The driver under test, by its name under /sys/bus/pci/drivers.
    #[arg(long, default_value = "vfio_pci_rs")]
    driver: String,
    /// Fail one of every so many allocations.
    #[arg(long, default_value = "1")]
    every: NonZeroUsize,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS")]
    results: PathBuf,
}

type Walk = fn(&Lab, &FailNth) -> Result<Outcomes>;

/// The operations, and whether each allocates for certain.
const WALKS: [(&str, bool, Walk); 9] = [
    ("module_init", true, module_init),
    ("probe_first_of_bus", true, |lab, faults| probe(lab, faults, &[])),
    ("probe_second_of_bus", true, |lab, faults| {
        probe(lab, faults, &[lab.topology.device("flr.1")?])
    }),
    ("open_group", true, |lab, faults| open(lab, faults, User::new, "vfio_group_fops_unl_ioctl")),
    ("open_cdev", true, |lab, faults| {
        let within = "vfio_device_fops_unl_ioctl";
        open(lab, faults, User::with_iommufd, within)
    }),
    // Either this task or a workqueue suspends and resumes the functions.
    ("close_flr", false, |lab, faults| {
        let functions = [lab.topology.device("flr.0")?];
        close(lab, faults, &functions, Counts::flr(1))
    }),
    ("close_bus_reset", false, |lab, faults| {
        close(lab, faults, &lab.topology.family("bus", 2)?, Counts::bus(1))
    }),
    ("unbind", true, unbind),
    ("module_exit", true, module_exit),
];

/// ACPI's lookup of a function's interrupt uses freed objects if its allocations fail, whichever
/// driver the function has.
const ACPI: Option<&str> = Some("acpi_pci_irq_lookup");

const NO_MEMORY: &[Errno] = &[Errno::ENOMEM];

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let lab = Lab::new(&arguments.driver, &arguments.results, 1)?;
    let faults = FailNth::new(arguments.every.get())?;
    let names = WALKS.map(|(name, ..)| name);
    let mut report = Report::create(&arguments.results, "faults", &names)?;
    for (name, allocates, walk) in WALKS {
        report.run(name, false, |t| {
            let what = "each failed allocation is refused or tolerated, and nothing is left";
            lab.driver.load(&[])?;
            if let Some(outcomes) = t.done(what, walk(&lab, &faults)) {
                if allocates {
                    t.holds("allocations fail", outcomes.failed() > 0);
                }
                t.observe("outcome", outcomes);
                t.done("the driver works afterwards", works(&lab));
            }
            t.done("the machine is restored", lab.restore());
            Ok(())
        });
    }
    Ok(report.exit_code())
}

fn module_init(lab: &Lab, faults: &FailNth) -> Result<Outcomes> {
    let file = driver::modinfo(&lab.driver.module(), "filename")?.concat();
    let file = File::open(&file).context(file)?;
    let undone = || gone(lab);
    faults.walk(&Operation {
        within: "do_one_initcall",
        spared: None,
        // The driver core returns EINVAL if it cannot make the directory `drivers` of a module
        // (module_add_driver()).
        refusals: &[Errno::ENOMEM, Errno::EINVAL],
        prepare: &|| lab.driver.unload(),
        // No device has this ID.
        perform: &|| Ok(finit_module(&file, c"ids=1234:5678", ModuleInitFlags::empty())?),
        undone: &undone,
        done: &|| {
            ensure!(lab.driver.registered(), "the driver is not registered");
            lab.driver.unload()?;
            undone()
        },
    })
}

fn module_exit(lab: &Lab, faults: &FailNth) -> Result<Outcomes> {
    let module = std::ffi::CString::new(lab.driver.module())?;
    faults.walk(&Operation {
        within: "__x64_sys_delete_module",
        spared: None,
        refusals: NO_MEMORY,
        prepare: &|| lab.driver.load(&[]),
        perform: &|| Ok(delete_module(&module, DeleteModuleFlags::O_NONBLOCK)?),
        undone: &|| {
            ensure!(lab.driver.registered(), "the driver is not registered");
            Ok(())
        },
        done: &|| gone(lab),
    })
}

/// Probes a function while `bound` functions of its bus are bound.
fn probe(lab: &Lab, faults: &FailNth, bound: &[Device]) -> Result<Outcomes> {
    let function = lab.topology.device("flr.0")?;
    let _bound = lab.bind(bound)?;
    let before = lab.domains()?;
    let undone = || {
        ensure!(function.driver().is_none(), "the function has a driver");
        unchanged(&before, lab)
    };
    faults.walk(&Operation {
        within: "pci_device_probe",
        // If it fails, vfio_group_release() warns of a group that was not set up, whichever
        // driver the device has.
        spared: Some("vfio_create_group"),
        refusals: NO_MEMORY,
        prepare: &|| function.set_override(Some(lab.driver.name())),
        perform: &|| function.attach(lab.driver.name()),
        undone: &undone,
        done: &|| {
            let listed = lab.domain_of(&function)?.is_some();
            ensure!(listed, "the function is in no reset domain");
            function.release()?;
            undone()
        },
    })
}

/// Unbinds a function while another one of its bus is bound.
fn unbind(lab: &Lab, faults: &FailNth) -> Result<Outcomes> {
    let [function, other] = lab.topology.devices(["flr.0", "flr.1"])?;
    let _bound = lab.bind([&other])?;
    let before = lab.domains()?;
    faults.walk(&Operation {
        within: "pci_device_remove",
        spared: ACPI,
        refusals: NO_MEMORY,
        prepare: &|| function.bind(lab.driver.name()),
        perform: &|| function.unbind(),
        undone: &|| bail!("the function was not unbound"),
        done: &|| {
            ensure!(function.driver().is_none(), "the function has a driver");
            unchanged(&before, lab)
        },
    })
}

/// Opens a function, by the function `within` of vfio.
fn open(
    lab: &Lab,
    faults: &FailNth,
    user: fn() -> Result<User>,
    within: &'static str,
) -> Result<Outcomes> {
    let function = lab.topology.device("flr.0")?;
    let _bound = lab.bind([&function])?;
    let before = lab.domains()?;
    let ready: RefCell<Option<User>> = RefCell::default();
    let opened: RefCell<Option<Opened>> = RefCell::default();
    let undone = || {
        ready.take();
        unchanged(&before, lab)?;
        power(&function, "D3hot")
    };
    faults.walk(&Operation {
        within,
        spared: ACPI,
        refusals: NO_MEMORY,
        prepare: &|| {
            ready.replace(Some(user()?));
            Ok(())
        },
        perform: &|| {
            let user = ready.borrow().clone().context("there is no user")?;
            opened.replace(Some(user.open(&function)?));
            Ok(())
        },
        undone: &undone,
        done: &|| {
            let domain = lab.domain_of(&function)?;
            let member = domain.as_ref().and_then(|domain| domain.member(&function));
            let open = member.is_some_and(|member| member.state == "open");
            ensure!(open, "the function is not open");
            power(&function, "D0")?;
            opened.take();
            undone()
        },
    })
}

/// Closes the first of `functions`, the only open one of its domain.
fn close(lab: &Lab, faults: &FailNth, functions: &[Device], resets: Counts) -> Result<Outcomes> {
    let function = &functions[0];
    let _bound = lab.bind(functions)?;
    let before: RefCell<Vec<Domain>> = RefCell::default();
    let user: RefCell<Option<User>> = RefCell::default();
    let opened: RefCell<Option<Opened>> = RefCell::default();
    faults.walk(&Operation {
        within: "vfio_device_fops_release",
        spared: ACPI,
        refusals: NO_MEMORY,
        prepare: &|| {
            let new = User::new()?;
            before.replace(lab.domains()?);
            opened.replace(Some(new.open(function)?));
            user.replace(Some(new));
            lab.tracer.mark()
        },
        perform: &|| {
            drop(opened.take());
            Ok(())
        },
        undone: &|| bail!("a close cannot fail"),
        done: &|| {
            let counted = lab.tracer.calls()?.counts();
            ensure!(counted == resets, "the resets were {counted}");
            user.take();
            let mut expected = before.take();
            for domain in &mut expected {
                domain.resets += resets.bus as u64;
            }
            unchanged(&expected, lab)?;
            power(function, "D3hot")
        },
    })
}

/// Checks that the driver opens, resets and closes a function.
fn works(lab: &Lab) -> Result<()> {
    let function = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let bound = lab.bind([&function])?;
    let before = lab.domains()?;
    let (opened, at_open) = lab.tracer.count(|| User::new()?.open(&function))?;
    let ((), at_close) = lab.tracer.count(|| {
        drop(opened);
        Ok(())
    })?;
    for (calls, when) in [(at_open, "open"), (at_close, "close")] {
        let counts = calls.counts();
        ensure!(counts == Counts::flr(1), "resets at {when}: {counts}");
    }
    unchanged(&before, lab)?;
    bound.release()
}

/// Checks that nothing is left of the module.
fn gone(lab: &Lab) -> Result<()> {
    let references = lab.driver.references()?;
    ensure!(references.is_none(), "the module is still there");
    ensure!(!lab.driver.registered(), "the driver is still registered");
    let directory = Path::new(debugfs::DIRECTORY).exists();
    ensure!(!directory, "its directory in debugfs is still there");
    Ok(())
}

fn power(function: &Device, expected: &str) -> Result<()> {
    let power = function.wait_power_state(expected)?;
    ensure!(power == expected, "the function is in {power}");
    Ok(())
}

fn forget_clean(domains: &[Domain]) -> Vec<Domain> {
    let mut domains = domains.to_vec();
    let members = domains.iter_mut().flat_map(|domain| &mut domain.members);
    members.for_each(|member| member.clean = false);
    domains
}

fn unchanged(before: &[Domain], lab: &Lab) -> Result<()> {
    let after = lab.domains()?;
    // A function that was used and reset is clean.
    let (before, after) = (forget_clean(before), forget_clean(&after));
    ensure!(before == after, "{after:?} are the domains, not {before:?}");
    Ok(())
}
