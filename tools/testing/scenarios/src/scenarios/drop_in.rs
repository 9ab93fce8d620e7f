// SPDX-License-Identifier: GPL-2.0

//! The driver under the name of vfio-pci, which it can replace.

use anyhow::Result;
use lab::driver::{self, modinfo, Driver};
use lab::kmsg::Mark;
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::sriov::virtual_function;
use lab::sysfs;
use lab::vfio::User;

/// The start of the alias of a driver that a tool shall choose for a function.
const ALIAS: &str = "vfio_pci:";

const BUSY: &str = "Device or resource busy";
const INVALID: &str = "Invalid argument";

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    module(t, lab.driver.name(), &lab.driver)?;
    lab.unreferenced(t)?;
    if !lab.driver.shows_domains() {
        t.skip("another name", "the driver has only one");
        return Ok(());
    }
    if !lab.driver.takes("driver_name")? {
        t.skip("another name", driver::BUILT_IN);
        return Ok(());
    }
    lab.driver.unload()?;

    let replaced = Driver::new(driver::REPLACED);
    described(lab, t, &replaced)?;
    let as_replaced = format!("driver_name={}", replaced.name());
    unknown_name(lab, t)?;
    beside(lab, t, &replaced, &as_replaced)?;

    lab.driver.load(&[&as_replaced])?;
    module(t, replaced.name(), &lab.driver)?;
    let twice = lab.driver.registered();
    t.check("it has no other name", !twice, || "it is registered twice");
    let what = "vfio-pci cannot be loaded beside it";
    refused(t, what, replaced.load(&[]), BUSY);
    used(lab, t, replaced.name())?;
    lab.unreferenced(t)
}

/// Tools that look for a driver by aliases find vfio-pci.
fn described(lab: &Lab, t: &mut Test<'_>, replaced: &Driver) -> Result<()> {
    let (own, other) = (lab.driver.module(), replaced.module());
    for (what, module, expected) in [("it", &own, false), ("vfio-pci", &other, true)] {
        let aliases = modinfo(module, "alias")?;
        let chosen = aliases.iter().any(|alias| alias.starts_with(ALIAS));
        let what = format!("a tool chooses {what} by an alias");
        t.eq(what, expected, chosen);
    }
    let license = modinfo(&own, "license")?;
    let same = !license.is_empty() && license == modinfo(&other, "license")?;
    t.check("its license is that of vfio-pci", same, || {
        format!("{license:?}")
    });
    Ok(())
}

/// An unknown name is refused, and reported once.
fn unknown_name(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let mut mark = Mark::here()?;
    let loaded = lab.driver.load(&["driver_name=pci-stub"]);
    refused(t, "an unknown name is refused", loaded, INVALID);
    let lines = mark.lines_with(&["driver_name", "pci-stub"])?;
    t.eq("lines about an unknown name", 1, lines.len());
    Ok(())
}

/// The name is not available while vfio-pci is loaded, which is reported once and does not
/// disturb vfio-pci.
fn beside(lab: &Lab, t: &mut Test<'_>, replaced: &Driver, as_replaced: &str) -> Result<()> {
    replaced.load(&[])?;
    let mut mark = Mark::here()?;
    let loaded = lab.driver.load(&[as_replaced]);
    refused(t, "a taken name is refused", loaded, BUSY);
    let lines = mark.lines_with(&["cannot be registered as", replaced.name()])?;
    t.eq("lines about a taken name", 1, lines.len());
    module(t, replaced.name(), replaced)?;
    lab.driver.load(&[])?;
    let both = lab.driver.registered() && replaced.registered();
    t.check("both can be loaded, each with its own name", both, || {
        "one is not registered"
    });
    lab.driver.unload()?;
    replaced.unload()
}

/// The driver binds, opens and captures functions under the other name as under its own.
fn used(lab: &Lab, t: &mut Test<'_>, name: &str) -> Result<()> {
    lab.driver
        .load(&[&format!("driver_name={name}"), "enable_sriov=1"])?;
    let pf = lab.topology.device(PF)?;
    pf.bind(name)?;
    pf.write("sriov_numvfs", "1")?;
    let vf = virtual_function(&pf, 0)?;
    t.eq("override of a VF", name, &vf.read("driver_override")?);
    t.eq("driver of a VF", name, &vf.driver().unwrap_or_default());
    pf.write("sriov_numvfs", "0")?;
    pf.release()?;

    let device = lab.topology.device("flr.0")?;
    device.bind(name)?;
    let opened = User::new()?.open(&device)?;
    lab.state(t, &device, "opened under the other name", "open")?;
    drop(opened);
    lab.state(t, &device, "closed", "idle")?;
    device.release()
}

/// Checks which module the directory of the driver `name` links to.
fn module(t: &mut Test<'_>, name: &str, expected: &Driver) -> Result<()> {
    let module = sysfs::link(&sysfs::driver_path(name).join("module"))?;
    let what = format!("module of the driver {name}");
    t.eq(what, expected.module(), module);
    Ok(())
}

/// Checks that `modprobe` has failed with the message `why`.
fn refused(t: &mut Test<'_>, what: &str, result: Result<()>, why: &str) {
    let refused = matches!(&result, Err(e) if format!("{e:#}").contains(why));
    t.check(what, refused, || format!("expected {why} got {result:?}"));
}
