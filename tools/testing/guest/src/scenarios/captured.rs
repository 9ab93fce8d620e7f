// SPDX-License-Identifier: GPL-2.0

//! Scenario 12: the virtual functions of a physical function that is bound to the driver.

use std::path::Path;

use nix::errno::Errno;

use super::errno;
use crate::driver;
use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sysfs::Bdf;
use crate::topology::Device;
use crate::Error;
use crate::Result;

const VFS: usize = 7;

/// Exists if the kernel has lockdep.
const LOCKDEP: &str = "/proc/lockdep";

/// Why VFs are not removed by unbinding their PF there: the PCI core asserts that its lock is held
/// when a function is removed, but an unbind does not take it, and a driver's remove cannot, as it
/// is held already when the PF itself goes.
const UNLOCKED: &str =
    "lockdep reports any PF driver: an unbind does not hold pci_rescan_remove_lock";

/// Root may enable them if `enable_sriov` is set; they are the driver's, and go with the PF.
pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    let pf = lab.topology.device(lab::PF)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&pf])?;
    let enabled = errno(&pf.write("sriov_numvfs", &VFS.to_string()));
    t.observe("errno without enable_sriov", &enabled);
    t.eq(
        "without enable_sriov there are no VFs",
        format!("{:?}", Errno::ENOENT),
        enabled,
    );
    binding.release()?;
    lab.driver.unload()?;

    lab.driver.load(&["enable_sriov=1"])?;
    let binding = lab.bind([&pf])?;
    pf.write("sriov_numvfs", &VFS.to_string())?;
    captured(lab, t, &pf, "enabled")?;
    let again = errno(&pf.write("sriov_numvfs", "1"));
    t.observe("errno for another number", &again);
    t.eq(
        "another number of VFs has to wait until there are none",
        format!("{:?}", Errno::EBUSY),
        again,
    );
    lab.power(t, &pf, "with VFs", "D0")?;
    given_away(lab, t, &pf)?;
    pf.write("sriov_numvfs", "0")?;
    lab.power(t, &pf, "without VFs again", "D3hot")?;

    pf.write("sriov_numvfs", &VFS.to_string())?;
    captured(lab, t, &pf, "enabled again")?;
    if Path::new(LOCKDEP).exists() {
        pf.write("sriov_numvfs", "0")?;
        binding.release()?;
        t.skip("VFs go with their PF", UNLOCKED);
    } else {
        binding.release()?;
        let left = pf.read("sriov_numvfs")?;
        t.observe("VFs after the PF is unbound", &left);
        t.eq("VFs go with their PF", "0", &left);
    }
    if lab.driver.shows_domains() {
        t.check("no reset domain is left", lab.no_domains()?, || {
            "there are some in debugfs"
        });
    }
    lab.unreferenced(t)
}

/// A VF that is given to another driver while the PF is the driver's is warned about, and no more.
fn given_away(lab: &Lab, t: &mut Test, pf: &Bdf) -> Result<()> {
    driver::modprobe("pci_stub", &[])?;
    let vf = virtual_function(pf, 0)?;
    let mut mark = Mark::here()?;
    vf.bind(lab::STUB)?;
    let elsewhere = vf.driver().unwrap_or_default();
    t.eq("a VF can be given away", lab::STUB, &elsewhere);
    let warnings = mark.lines_with(&["bound to driver pci-stub while PF bound to driver"])?;
    t.observe("warnings about a VF with another driver", warnings.len());
    t.eq("that is warned about once", 1, warnings.len());
    vf.bind(lab.driver.name())
}

/// The VF of a number.
fn virtual_function(pf: &Bdf, number: usize) -> Result<Device> {
    let link = pf.path().join(format!("virtfn{number}"));
    let target = std::fs::canonicalize(&link)
        .map_err(|e| Error::io(format!("resolving {}", link.display()), e))?;
    let name = target.file_name().and_then(|name| name.to_str());
    Ok(Device::new(
        format!("vf.{number}"),
        &Bdf::parse(name.unwrap_or(""))?,
    ))
}

/// Asserts that each VF of `pf` is bound to the driver by its override, in a domain of its own.
fn captured(lab: &Lab, t: &mut Test, pf: &Bdf, when: &str) -> Result<()> {
    for i in 0..VFS {
        let vf = virtual_function(pf, i)?;
        let captured = (vf.read("driver_override")?, vf.driver().unwrap_or_default());
        let by_us = captured == (lab.driver.name().to_owned(), lab.driver.name().to_owned());
        t.observe(format!("VF {i} is captured {when}"), by_us);
        t.check(
            format!("{vf} is captured for the driver {when}"),
            by_us,
            || format!("override and driver are {captured:?}"),
        );
        lab.state(t, &vf, when, "idle")?;
    }
    Ok(())
}
