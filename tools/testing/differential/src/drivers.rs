// SPDX-License-Identifier: GPL-2.0

//! The driver and its module: parameters, files in sysfs, and the errors and log lines for bad
//! input.
//!
//! Runs alone, so that every line of the log is the driver's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use lab::debugfs;
use lab::driver::{self, Driver};
use lab::helper::{Identity, DENYLISTED};
use lab::sriov::VirtualFunctions;
use lab::sysfs::driver_path;
use lab::topology::{Device, Topology};
use lab::trace::Tracer;

use crate::call::{Call, Handle, Of, Request, To};
use crate::places::{self, Place};
use crate::session::{Entry, Mode, Session};
use crate::smoke;

/// Bad entries of `ids`, then a good one.
const IDS: &str = "ids=nonsense,1234,1234:,zz:11e8,1234:11e8:1:2:3:4:5,10000:1,,1234:11e8:zz";

/// The ID of the edu.
const EDU: &str = "1234 11e8";

/// Uses the driver, and leaves its module unloaded.
pub fn run(driver: &Driver, topology: &Topology) -> Result<Vec<Entry>> {
    let of = |role: &str| topology.device(role);
    // The place stands for the scratch registers only, which are not used here.
    let place = &places::ALL[0];
    let record = |functions: &[Device], script: fn(&mut Session<'_>) -> Result<()>| {
        driver.load(&[])?;
        let mut session = Session::new(driver, place, functions, Mode::Group)?;
        session.watch_log()?;
        script(&mut session)?;
        let entries = session.finish();
        functions.iter().filter(|of| of.path().exists()).try_for_each(|of| of.release())?;
        let left = driver.shows_domains() && !debugfs::domains()?.is_empty();
        ensure!(!left, "an unbound function is in a reset domain");
        Ok::<_, anyhow::Error>(entries)
    };
    driver.load(&[])?;
    let mut entries = shown(driver, place)?;
    let port = of("port")?;
    entries.extend(record(&[of("edu")?, port.clone()], identities)?);
    port.reprobe()?;
    for role in ["pm", "vga"] {
        entries.extend(record(&[of(role)?], options)?);
    }
    let pf = of(places::PF)?;
    let vfs = VirtualFunctions::enable(&pf, 1)?;
    let vf = vfs.devices().into_iter().next().context("the PF has no virtual function")?;
    drop(vfs);
    entries.extend(record(&[pf, vf], virtual_functions)?);
    driver.unload()?;
    Ok(entries)
}

/// The parameters of the module, and the files of the driver.
fn shown(driver: &Driver, place: &Place) -> Result<Vec<Entry>> {
    let mut session = Session::new(driver, place, &[], Mode::Group)?;
    let module = driver.module();
    for line in driver::modinfo(&module, "parm")? {
        let (name, description) = line.split_once(':').unwrap_or((&line, ""));
        let path = driver::parameter_path(&module, name);
        let value = fs::read_to_string(&path).unwrap_or_default();
        let mode = path.metadata().map_or(0, |of| of.permissions().mode() & 0o7777);
        let about = format!("'{description}', {mode:o}, '{}'", value.trim_end());
        session.fact(format!("parameter {name}"), about);
    }
    for (name, kind) in files(&driver_path(driver.name()))? {
        session.fact(format!("file {name} of the driver"), kind);
    }
    Ok(session.finish())
}

/// The files of the bound functions.
pub fn files_of_functions(session: &mut Session<'_>) -> Result<()> {
    for (number, function) in session.functions.iter().enumerate() {
        for (name, kind) in files(&function.path())? {
            session.fact(format!("file {name} of function {number}"), kind);
        }
        for attribute in ["reset_method", "power/control"] {
            let name = format!("{attribute} of function {number}");
            session.fact(name, function.read(attribute).unwrap_or("no such file".to_owned()));
        }
    }
    Ok(())
}

/// The kinds and permissions of the entries of a directory that are no functions.
fn files(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let entries = fs::read_dir(directory).with_context(|| format!("{}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains(':') {
            let about = entry.metadata()?;
            let mode = about.permissions().mode() & 0o7777;
            found.insert(name, format!("{:?} {mode:o}", about.file_type()));
        }
    }
    Ok(found)
}

/// IDs, and functions that the driver does not take. The second function is a bridge.
fn identities(session: &mut Session<'_>) -> Result<()> {
    let log = |session: &mut Session<'_>, call: Call| {
        session.call(call);
        session.call(Call::Log);
        session.call(Call::State(0));
    };
    let set = |name: &'static str, value: &str| Call::Set(Of::Driver, name, value.into());
    let edu = session.functions[0].clone();
    let offer = Call::Set(Of::Bus, "drivers_probe", edu.bdf().to_string());
    let tracer = Tracer::start(false)?;

    log(session, Call::Reload("no_such_parameter=1"));
    log(session, Call::Reload("disable_vga=maybe"));
    log(session, Call::Reload(IDS));
    log(session, Call::Reload(""));
    log(session, offer.clone());
    log(session, set("new_id", EDU));
    log(session, set("bind", &edu.bdf().to_string()));
    log(session, set("unbind", &edu.bdf().to_string()));
    log(session, offer.clone());
    log(session, set("remove_id", EDU));
    log(session, set("unbind", &edu.bdf().to_string()));
    log(session, offer);
    log(session, set("new_id", EDU));
    log(session, Call::Bind(0, To::None));
    // The ID is gone with the module.
    log(session, Call::Reload(""));
    // Without an override.
    log(session, set("bind", &edu.bdf().to_string()));
    log(session, Call::Bind(1, To::Driver));
    session.call(Call::State(1));

    let identity = Identity::assume(&edu, DENYLISTED.0, DENYLISTED.1)?;
    log(session, Call::Bind(0, To::Driver));
    log(session, Call::Bind(0, To::None));
    log(session, Call::Reload("disable_denylist=1"));
    log(session, Call::Bind(0, To::Driver));
    drop(identity);
    session
        .fact("resets while functions are bound and refused", tracer.calls()?.counts().to_string());
    Ok(())
}

/// The parameters that vfio-pci-core treats a device by.
fn options(session: &mut Session<'_>) -> Result<()> {
    for parameters in ["", "nointxmask=1 disable_vga=1 disable_idle_d3=1"] {
        session.call(Call::Reload(parameters));
        session.call(Call::Bind(0, To::Driver));
        session.call(Call::State(0));
        session.call(Call::Legacy(0));
        session.open(Handle::DEVICE);
        session.ask(Handle::DEVICE, Request::GET_IRQ_INFO, &[16, 0, 0]);
        smoke::mask_intx(session);
        session.call(Call::CloseAll);
        session.call(Call::State(0));
    }
    session.call(Call::Log);
    Ok(())
}

/// A physical function and its virtual function, which exists only in between.
fn virtual_functions(session: &mut Session<'_>) -> Result<()> {
    let look = |session: &mut Session<'_>| {
        session.call(Call::Log);
        session.call(Call::State(0));
        session.call(Call::State(1));
    };
    let set = |session: &mut Session<'_>, value: &str| {
        let name = "sriov_numvfs";
        session.call(Call::Set(Of::Function(0), name, value.to_owned()));
        look(session);
    };
    let pf = session.functions[0].clone();

    session.call(Call::Bind(0, To::Driver));
    set(session, "1");
    let name = "enable_sriov";
    session.call(Call::Set(Of::Parameters, name, "maybe".to_owned()));
    session.call(Call::Set(Of::Parameters, name, "1".to_owned()));
    for number in ["nonsense", "-1", "65536", "9", "0", "1", "1", "2"] {
        set(session, number);
    }
    session.call(Call::Bind(1, To::Stub));
    look(session);
    session.call(Call::Bind(1, To::Driver));
    // Without the token that the two users would share.
    session.open(Handle::DEVICE);
    session.open(Handle::SIBLING);
    look(session);
    set(session, "0");
    set(session, "1");
    session.call(Call::CloseAll);
    // The virtual functions go with the physical one, bound or not.
    session.call(Call::Bind(0, To::None));
    look(session);
    session.call(Call::Bind(0, To::Driver));
    set(session, "1");
    session.call(Call::Bind(1, To::None));
    session.call(Call::Bind(0, To::None));
    look(session);

    // Those of another driver forbid to bind the physical one.
    let vfs = VirtualFunctions::enable(&pf, 1)?;
    session.call(Call::Bind(0, To::Driver));
    look(session);
    drop(vfs);
    Ok(())
}
