// SPDX-License-Identifier: GPL-2.0

//! Scenario 14: the driver under the name of the one that it can take the place of.

use std::fs;

use crate::driver;
use crate::driver::Driver;
use crate::error::Doing;
use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sysfs;
use crate::topology::Device;
use crate::vfio::User;
use crate::Result;

/// What `modprobe` says of two errors.
const BUSY: &str = "Device or resource busy";
const INVALID: &str = "Invalid argument";

/// What the alias of a driver begins with that a tool is to choose for a function.
const ALIAS: &str = "vfio_pci:";

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    lab.driver.load(&[])?;
    t.eq(
        "the module that the driver's directory names",
        lab.driver.module(),
        module_of(lab.driver.name())?,
    );
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
    t.eq(
        "the module behind the other name",
        lab.driver.module(),
        module_of(replaced.name())?,
    );
    t.check(
        "it has no other name beside",
        !lab.driver.registered(),
        || "it is registered twice",
    );
    refused(
        t,
        "vfio-pci cannot be loaded beside it",
        replaced.load(&[]),
        BUSY,
    );
    used(lab, t, replaced.name())?;
    lab.unreferenced(t)
}

/// Tools that look for a driver by the module's aliases find the other one; the parameters are the
/// other one's, and the name.
fn described(lab: &Lab, t: &mut Test, replaced: &Driver) -> Result<()> {
    let own = driver::modinfo(&lab.driver.module(), "alias")?;
    t.check(
        "no alias makes a tool choose it",
        !own.iter().any(|alias| alias.starts_with(ALIAS)),
        || format!("{own:?}"),
    );
    let aliases = driver::modinfo(&replaced.module(), "alias")?;
    t.check(
        "vfio-pci has such an alias",
        aliases.iter().any(|alias| alias.starts_with(ALIAS)),
        || format!("{aliases:?}"),
    );

    let license = driver::modinfo(&lab.driver.module(), "license")?;
    t.check(
        "its license is that of vfio-pci",
        !license.is_empty() && license == driver::modinfo(&replaced.module(), "license")?,
        || format!("{license:?}"),
    );

    let mut parameters = driver::modinfo(&lab.driver.module(), "parm")?;
    let all = parameters.len();
    parameters.retain(|parameter| !parameter.starts_with("driver_name:"));
    t.eq("it has a parameter driver_name", all - 1, parameters.len());
    let mut expected = driver::modinfo(&replaced.module(), "parm")?;
    parameters.sort();
    expected.sort();
    t.check(
        "its other parameters are those of vfio-pci",
        !expected.is_empty() && parameters == expected,
        || format!("expected {expected:#?} got {parameters:#?}"),
    );
    Ok(())
}

/// A name that is none of the driver's is refused, and reported once.
fn unknown_name(lab: &Lab, t: &mut Test) -> Result<()> {
    let mut mark = Mark::here()?;
    refused(
        t,
        "an unknown name is refused",
        lab.driver.load(&["driver_name=pci-stub"]),
        INVALID,
    );
    let lines = mark.lines_with(&["driver_name", "pci-stub"])?;
    t.eq("it is reported once", 1, lines.len());
    Ok(())
}

/// While the other driver is loaded its name is not to be had, and that is reported once; nothing
/// happens to the other driver.
fn beside(lab: &Lab, t: &mut Test, replaced: &Driver, as_replaced: &str) -> Result<()> {
    replaced.load(&[])?;
    let mut mark = Mark::here()?;
    refused(
        t,
        "a name that is taken is refused",
        lab.driver.load(&[as_replaced]),
        BUSY,
    );
    let lines = mark.lines_with(&["cannot be registered as", replaced.name()])?;
    t.eq("it is reported once", 1, lines.len());
    t.eq(
        "the name is still the other driver's",
        replaced.module(),
        module_of(replaced.name())?,
    );
    lab.driver.load(&[])?;
    t.check(
        "under its own name it can be loaded beside the other",
        lab.driver.registered() && replaced.registered(),
        || "one of them is not registered",
    );
    lab.driver.unload()?;
    replaced.unload()
}

/// Functions are bound, opened and captured under the other name as under its own.
fn used(lab: &Lab, t: &mut Test, name: &str) -> Result<()> {
    lab.driver
        .load(&[&format!("driver_name={name}"), "enable_sriov=1"])?;
    let pf = lab.topology.device(lab::PF)?;
    pf.bind(name)?;
    pf.write("sriov_numvfs", "1")?;
    let link = pf.path().join("virtfn0");
    let target = fs::canonicalize(&link).doing(format!("resolving {}", link.display()))?;
    let vf = target.file_name().and_then(|name| name.to_str());
    let vf = sysfs::Bdf::parse(vf.unwrap_or(""))?;
    t.eq(
        "a VF is captured for the other name",
        name.to_owned(),
        vf.read("driver_override")?,
    );
    t.eq(
        "a VF is bound to it",
        name.to_owned(),
        vf.driver().unwrap_or_default(),
    );
    pf.write("sriov_numvfs", "0")?;
    pf.release()?;

    let device: Device = lab.topology.device("flr.0")?;
    device.bind(name)?;
    let opened = User::new()?.open(&device)?;
    lab.state(t, &device, "opened under the other name", "open")?;
    drop(opened);
    lab.state(t, &device, "released", "idle")?;
    device.release()
}

/// The name of the module that a driver's directory names.
fn module_of(driver: &str) -> Result<String> {
    let link = sysfs::driver_path(driver).join("module");
    let target = fs::read_link(&link).doing(format!("reading {}", link.display()))?;
    let name = target.file_name().unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

/// Asserts that `modprobe` has failed for the reason `why`.
fn refused(t: &mut Test, what: &str, result: Result<()>, why: &str) {
    let said = result.err().map_or("nothing".to_owned(), |e| e.to_string());
    t.check(what, said.contains(why), || {
        format!("expected {why} got {said}")
    });
}
