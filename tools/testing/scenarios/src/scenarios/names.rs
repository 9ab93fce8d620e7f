// SPDX-License-Identifier: GPL-2.0

//! The names of the driver: its own, beside vfio-pci, or those of vfio-pci in its place.

use std::fs;
use std::path::Path;

use anyhow::Result;
use lab::driver::{self, modinfo, Driver, NVME};
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::sriov::virtual_function;
use lab::sysfs;

/// The start of the alias of a driver that a tool shall choose for a function.
const ALIAS: &str = "vfio_pci:";

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    module(t, &lab.driver)?;
    lab.unreferenced(t)?;
    if !lab.driver.shows_domains() {
        t.skip("described", "the driver has only one name");
        return Ok(());
    }
    chosen(t, &lab.driver, lab.driver.is_in_place())?;
    first(t, &lab.driver)?;
    used(lab, t)?;
    if lab.driver.is_in_place() {
        return Ok(());
    }

    let other = Driver::new(driver::REPLACED);
    chosen(t, &other, true)?;
    let own = modinfo(&lab.driver.module(), "license")?;
    let same = !own.is_empty() && own == modinfo(&other.module(), "license")?;
    t.check("its license is that of vfio-pci", same, || format!("{own:?}"));
    other.load(&[])?;
    module(t, &lab.driver)?;
    module(t, &other)?;
    other.unload()
}

/// Checks whether tools that look for a driver by its alias find this one.
fn chosen(t: &mut Test<'_>, driver: &Driver, expected: bool) -> Result<()> {
    let aliases = modinfo(&driver.module(), "alias")?;
    let chosen = aliases.iter().any(|alias| alias.starts_with(ALIAS));
    let what = format!("a tool chooses {} by an alias", driver.name());
    t.eq(what, expected, chosen);
    Ok(())
}

/// libvirt takes the first driver of the module for any function.
fn first(t: &mut Test<'_>, driver: &Driver) -> Result<()> {
    let drivers = Path::new("/sys/module").join(driver.module()).join("drivers");
    let names = fs::read_dir(drivers)?.map(|entry| Ok(entry?.file_name().into_string()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    let expected = [driver.name(), NVME].map(|name| Ok(format!("pci:{name}")));
    t.check("the first driver of the module", names == expected, || format!("{names:?}"));
    Ok(())
}

/// The driver captures VFs under its name.
fn used(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let name = lab.driver.name();
    lab.driver.load(&["enable_sriov=1"])?;
    let pf = lab.topology.device(PF)?;
    pf.bind(name)?;
    pf.write("sriov_numvfs", "1")?;
    let vf = virtual_function(&pf, 0)?;
    t.eq("override of a VF", name, &vf.read("driver_override")?);
    t.eq("driver of a VF", name, &vf.driver().unwrap_or_default());
    pf.write("sriov_numvfs", "0")?;
    pf.release()
}

/// Checks which module the driver's directory links to.
fn module(t: &mut Test<'_>, driver: &Driver) -> Result<()> {
    let path = sysfs::driver_path(driver.name()).join("module");
    let what = format!("module of the driver {}", driver.name());
    t.eq(what, driver.module(), sysfs::link(&path)?);
    Ok(())
}
