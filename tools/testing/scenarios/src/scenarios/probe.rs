// SPDX-License-Identifier: GPL-2.0

//! The functions that the driver binds, and the errno for all others.

use anyhow::{ensure, Result};
use lab::driver;
use lab::helper::{Identity, DENYLISTED};
use lab::kmsg::Mark;
use lab::machine::{self, Lab, PF, PORT, PORT_DRIVER};
use lab::report::Test;
use lab::sriov::VirtualFunctions;
use lab::sysfs::{self, Bdf};
use lab::trace::Counts;

use super::errno;

const VFS: usize = 7;

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    ids(lab, t)?;
    denylist(lab, t)?;
    lab.driver.load(&[])?;
    header_type_1(lab, t)?;
    pf_with_vfs(lab, t)?;
    lab.unreferenced(t)
}

/// `ids=` binds at load the functions of an ID and no other, and warns of an invalid entry.
fn ids(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    if !lab.driver.takes("ids")? {
        t.skip("ids= binds functions at load", driver::BUILT_IN);
        return Ok(());
    }
    let device = lab.topology.device("bus.a")?;
    device.release()?;
    lab.driver.unload()?;
    let (vendor, id) = device.id()?;
    let mut expected = sysfs::all_functions()?;
    let named = |f: &Bdf| f.id().is_ok_and(|(v, d)| v == vendor && d == id);
    expected.retain(|f| f.driver().is_none() && named(f));
    let mut mark = Mark::here()?;
    lab.driver.load(&[&format!("ids=nonsense,{vendor}:{id}")])?;

    let bound = bound_functions(lab)?;
    t.seen("ids= binds bus.a", true, bound.contains(device.bdf()));
    t.observe("ids= binds", bound.len());
    let what = "ids= binds every unbound function of the ID";
    t.check(what, bound == expected, || {
        format!("expected {expected:?} got {bound:?}")
    });
    let warnings = mark.lines_with(&["nonsense"])?;
    t.seen("warnings about an invalid entry of ids=", 1, warnings.len());
    for function in bound {
        function.release()?;
    }
    if !lab.driver.shows_domains() {
        // vfio-pci uses the lower 32 bits, which match any subvendor.
        return Ok(());
    }
    lab.driver.unload()?;
    let mut mark = Mark::here()?;
    lab.driver
        .load(&[&format!("ids={vendor}:{id}:1ffffffff")])?;
    let bound = bound_functions(lab)?;
    let what = "functions bound by an entry of ids= with more than 32 bits";
    t.eq(what, 0, bound.len());
    let warnings = mark.lines_with(&["1ffffffff"])?;
    t.eq("warnings about more than 32 bits", 1, warnings.len());
    Ok(())
}

/// A denylisted device is refused, unless `disable_denylist` is set.
fn denylist(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let device = lab.topology.device("bus.a")?;
    device.release()?;
    let (vendor, id) = DENYLISTED;
    let _identity = Identity::assume(&device, vendor, id)?;

    lab.driver.load(&[])?;
    let mut mark = Mark::here()?;
    refused(lab, t, "a denylisted device", &device, "EINVAL")?;
    let lines = mark.lines_with(&[&device.bdf().to_string(), "denylist"])?;
    t.seen("log lines about a denylisted device", 1, lines.len());
    device.release()?;

    if !lab.driver.takes("disable_denylist")? {
        t.skip("disable_denylist=1 lets it bind", driver::BUILT_IN);
        return Ok(());
    }
    lab.driver.load(&["disable_denylist=1"])?;
    let mut mark = Mark::here()?;
    let binding = lab.bind([&device]);
    t.observe("disable_denylist binds", binding.is_ok());
    if let Some(binding) = t.done("disable_denylist=1 lets it bind", binding) {
        let lines = mark.lines_with(&[&device.bdf().to_string(), "denylist"])?;
        t.seen("log lines with disable_denylist", 1, lines.len());
        binding.release()?;
    }
    Ok(())
}

/// A bridge is refused.
fn header_type_1(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let port = lab.topology.device(PORT)?;
    refused(lab, t, "a function with header type 1", &port, "EINVAL")?;
    machine::give_port_back(&port)?;
    let driver = port.driver().unwrap_or_default();
    t.eq("driver of the port afterwards", PORT_DRIVER, &driver);
    Ok(())
}

/// A physical function is refused while its virtual functions are not the driver's.
fn pf_with_vfs(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let pf = lab.topology.device(PF)?;
    let vfs = VirtualFunctions::enable(&pf, VFS)?;
    // Virtual functions outlive the driver that enabled them.
    pf.unbind()?;
    let left = pf.read("sriov_numvfs")?;
    ensure!(left == VFS.to_string(), "{pf} has {left} VFs, not {VFS}");
    refused(lab, t, "a PF whose VFs are enabled", &pf, "EBUSY")?;
    drop(vfs);

    let binding = lab.bind([&pf]);
    t.observe("a PF without VFs binds", binding.is_ok());
    if let Some(binding) = t.done("a PF without VFs binds", binding) {
        lab.power(t, &pf, "bound", "D3hot")?;
        binding.release()?;
    }
    Ok(())
}

/// Checks that binding `function` fails, and leaves it unbound and in no domain.
fn refused(lab: &Lab, t: &mut Test<'_>, what: &str, function: &Bdf, expected: &str) -> Result<()> {
    let bind = || Ok(function.bind(lab.driver.name()));
    let result = lab.counted(t, &format!("while {what} is refused"), Counts::NONE, bind)?;
    t.seen(format!("errno for {what}"), expected, &errno(&result));
    let driver = function.driver();
    t.check(format!("{what} stays unbound"), driver.is_none(), || {
        format!("bound to {driver:?}")
    });
    let listed = lab.domain_of(function)?.is_some();
    t.eq(format!("{what} is in a reset domain"), false, listed);
    Ok(())
}

fn bound_functions(lab: &Lab) -> Result<Vec<Bdf>> {
    let mut functions = sysfs::all_functions()?;
    functions.retain(|f| f.driver().as_deref() == Some(lab.driver.name()));
    Ok(functions)
}
