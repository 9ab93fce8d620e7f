// SPDX-License-Identifier: GPL-2.0

//! Scenario 2: which functions the driver takes, and with which errno it refuses the others.

use nix::errno::Errno;

use crate::driver;
use crate::helper::Identity;
use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sriov::VirtualFunctions;
use crate::sysfs;
use crate::sysfs::Bdf;
use crate::trace::Counts;
use crate::Error;
use crate::Result;

/// A device of the denylist: PCI_DEVICE_ID_INTEL_QAT_C62X.
const DENYLISTED: (&str, &str) = ("8086", "37c8");
const VFS: usize = 7;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    ids(lab, t)?;
    denylist(lab, t)?;
    lab.driver.load(&[])?;
    header_type_1(lab, t)?;
    pf_with_vfs(lab, t)?;
    lab.unreferenced(t)
}

/// `ids=` binds at load what it names and nothing else; an entry that is none is warned about.
fn ids(lab: &Lab, t: &mut Test) -> Result<()> {
    if !lab.driver.takes("ids")? {
        t.skip("ids= binds at load what it names", driver::BUILT_IN);
        return Ok(());
    }
    let device = lab.topology.device("bus.a")?;
    device.release()?;
    lab.driver.unload()?;
    let (vendor, id) = device.id()?;
    let before: Vec<Bdf> = sysfs::all_functions()?
        .into_iter()
        .filter(|f| f.driver().is_none())
        .collect();
    let mut mark = Mark::here()?;
    lab.driver.load(&[&format!("ids=nonsense,{vendor}:{id}")])?;

    let bound = bound_functions(lab)?;
    let named = |f: &&Bdf| f.id().is_ok_and(|(v, d)| v == vendor && d == id);
    let expected: Vec<Bdf> = before.iter().filter(named).cloned().collect();
    t.observe("ids binds bus.a", bound.contains(device.bdf()));
    t.observe("ids binds", bound.len());
    t.check(
        "ids= binds at load every unbound function of that ID",
        bound == expected,
        || format!("expected {expected:?} got {bound:?}"),
    );
    let warnings = mark.lines_with(&["nonsense"])?;
    t.observe("warnings about an invalid ids entry", warnings.len());
    t.eq(
        "an entry of ids= that is none is warned about once",
        1,
        warnings.len(),
    );
    for function in bound {
        function.release()?;
    }
    if !lab.driver.shows_domains() {
        // The lower 32 bits, which vfio-pci takes, stand for any subvendor.
        return Ok(());
    }
    lab.driver.unload()?;
    let mut mark = Mark::here()?;
    lab.driver
        .load(&[&format!("ids={vendor}:{id}:1ffffffff")])?;
    let bound = bound_functions(lab)?;
    t.check(
        "an entry of ids= with more than 32 bits binds nothing",
        bound.is_empty(),
        || format!("{bound:?} are bound"),
    );
    let warnings = mark.lines_with(&["1ffffffff"])?;
    t.eq("it is warned about once", 1, warnings.len());
    Ok(())
}

/// A denylisted device is refused, unless `disable_denylist` is set.
fn denylist(lab: &Lab, t: &mut Test) -> Result<()> {
    let device = lab.topology.device("bus.a")?;
    device.release()?;
    let (vendor, id) = DENYLISTED;
    let _identity = Identity::assume(&device, vendor, id)?;

    lab.driver.load(&[])?;
    let mut mark = Mark::here()?;
    refused(lab, t, "a denylisted device", &device, Errno::EINVAL)?;
    let said = mark.lines_with(&[&device.bdf().to_string(), "denylist"])?;
    t.observe("log lines about a denylisted device", said.len());
    t.eq("the log says once that it is denylisted", 1, said.len());
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
        let said = mark.lines_with(&[&device.bdf().to_string(), "denylist"])?;
        t.observe("log lines with disable_denylist", said.len());
        t.eq("the log warns once about it", 1, said.len());
        binding.release()?;
    }
    Ok(())
}

/// A bridge is not for user space.
fn header_type_1(lab: &Lab, t: &mut Test) -> Result<()> {
    let port = lab.topology.device(lab::PORT)?;
    refused(
        lab,
        t,
        "a function with header type 1",
        &port,
        Errno::EINVAL,
    )?;
    lab::give_port_back(&port)?;
    let driver = port.driver().unwrap_or_default();
    t.eq(
        "the port has its driver back",
        lab::PORT_DRIVER.to_owned(),
        driver,
    );
    Ok(())
}

/// Nobody may have the physical function while its virtual functions are somebody's.
fn pf_with_vfs(lab: &Lab, t: &mut Test) -> Result<()> {
    let pf = lab.topology.device(lab::PF)?;
    let vfs = VirtualFunctions::enable(&pf, VFS)?;
    // Virtual functions outlive the driver that made them.
    pf.unbind()?;
    let left = pf.read("sriov_numvfs")?;
    if left != VFS.to_string() {
        return Err(Error::new(format!(
            "{pf} has {left} virtual functions, expected {VFS}"
        )));
    }
    refused(lab, t, "a PF whose VFs are enabled", &pf, Errno::EBUSY)?;
    drop(vfs);

    let binding = lab.bind([&pf]);
    t.observe("a PF without VFs binds", binding.is_ok());
    if let Some(binding) = t.done("a PF without VFs binds", binding) {
        lab.power(t, &pf, "bound", "D3hot")?;
        binding.release()?;
    }
    Ok(())
}

/// Asserts that binding `function` fails with `errno` and leaves it unbound and in no domain.
fn refused(lab: &Lab, t: &mut Test, what: &str, function: &Bdf, errno: Errno) -> Result<()> {
    let (result, calls) = lab.tracer.count(|| Ok(function.bind(lab.driver.name())))?;
    lab.resets(
        t,
        &calls,
        &format!("while {what} is refused"),
        Counts::default(),
    );
    let got = result
        .as_ref()
        .err()
        .and_then(Error::errno)
        .map(Errno::from_raw);
    let shown = got.map_or("none".to_owned(), |errno| format!("{errno:?}"));
    t.observe(format!("errno for {what}"), &shown);
    t.check(
        format!("{what} is refused with {errno:?}"),
        got == Some(errno),
        || format!("got {shown}: {result:?}"),
    );
    let driver = function.driver();
    t.check(format!("{what} stays unbound"), driver.is_none(), || {
        format!("bound to {driver:?}")
    });
    if lab.driver.shows_domains() {
        let listed = lab.listed(function);
        t.check(
            format!("{what} is in no reset domain"),
            matches!(listed, Ok(false)),
            || format!("{listed:?}"),
        );
    }
    Ok(())
}

fn bound_functions(lab: &Lab) -> Result<Vec<Bdf>> {
    let mut functions = sysfs::all_functions()?;
    functions.retain(|f| f.driver().as_deref() == Some(lab.driver.name()));
    Ok(functions)
}
