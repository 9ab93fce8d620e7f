// SPDX-License-Identifier: GPL-2.0

//! The virtual functions of a physical function that is bound to the driver. Root may enable them
//! if `enable_sriov` is set. They are the driver's, and are removed with the PF.

use std::path::Path;

use anyhow::Result;
use lab::driver;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF, STUB};
use lab::report::Test;
use lab::sriov::virtual_function;
use lab::sysfs::Bdf;

use super::errno;

const VFS: usize = 7;

/// Exists if the kernel has lockdep.
const LOCKDEP: &str = "/proc/lockdep";

/// The PCI core asserts that its lock is held when a function is removed. An unbind does not take
/// it, and a driver's remove cannot, as the core holds it when the PF itself is removed.
const UNLOCKED: &str =
    "lockdep reports any PF driver: an unbind does not hold pci_rescan_remove_lock";

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let pf = lab.topology.device(PF)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&pf])?;
    let enabled = errno(&pf.write("sriov_numvfs", &VFS.to_string()));
    t.seen("errno without enable_sriov", "ENOENT", &enabled);
    binding.release()?;
    lab.driver.unload()?;

    lab.driver.load(&["enable_sriov=1"])?;
    let binding = lab.bind([&pf])?;
    pf.write("sriov_numvfs", &VFS.to_string())?;
    captured(lab, t, &pf, "enabled")?;
    let again = errno(&pf.write("sriov_numvfs", "1"));
    t.seen("errno for another number of VFs", "EBUSY", &again);
    lab.power(t, &pf, "with VFs", "D0")?;
    given_away(lab, t, &pf)?;
    pf.write("sriov_numvfs", "0")?;
    lab.power(t, &pf, "without VFs again", "D3hot")?;

    pf.write("sriov_numvfs", &VFS.to_string())?;
    captured(lab, t, &pf, "enabled again")?;
    if Path::new(LOCKDEP).exists() {
        pf.write("sriov_numvfs", "0")?;
        binding.release()?;
        t.skip("VFs are removed with their PF", UNLOCKED);
    } else {
        binding.release()?;
        let left = pf.read("sriov_numvfs")?;
        t.seen("VFs after the PF is unbound", "0", &left);
    }
    t.check("no reset domain is left", lab.no_domains()?, || {
        "debugfs has some"
    });
    lab.unreferenced(t)
}

/// Binding a VF to another driver while the PF is the driver's causes only a warning.
fn given_away(lab: &Lab, t: &mut Test<'_>, pf: &Bdf) -> Result<()> {
    driver::modprobe("pci_stub", &[])?;
    let vf = virtual_function(pf, 0)?;
    let mut mark = Mark::here()?;
    vf.bind(STUB)?;
    t.eq("driver of a VF", STUB, &vf.driver().unwrap_or_default());
    let warnings = mark.lines_with(&["bound to driver pci-stub while PF bound to driver"])?;
    t.seen("warnings about a VF with another driver", 1, warnings.len());
    vf.bind(lab.driver.name())
}

/// Checks that each VF of `pf` is bound to the driver by its override, in its own domain.
fn captured(lab: &Lab, t: &mut Test<'_>, pf: &Bdf, when: &str) -> Result<()> {
    for i in 0..VFS {
        let vf = virtual_function(pf, i)?;
        let captured = [vf.read("driver_override")?, vf.driver().unwrap_or_default()];
        let by_us = captured.iter().all(|driver| driver == lab.driver.name());
        t.seen(format!("VF {i} is captured {when}"), true, by_us);
        lab.state(t, &vf, when, "idle")?;
    }
    Ok(())
}
