// SPDX-License-Identifier: GPL-2.0

//! Virtual functions of a physical function that `pci-pf-stub` drives.

use anyhow::{ensure, Result};

use crate::driver;
use crate::sysfs::Bdf;
use crate::topology::Device;

/// A driver that only enables SR-IOV.
pub const PF_STUB: &str = "pci-pf-stub";

/// A physical function whose virtual functions are enabled and unbound. Dropping it removes those
/// that are left and releases the physical one.
#[derive(Debug)]
pub struct VirtualFunctions {
    pf: Bdf,
    vfs: Vec<Device>,
}

impl VirtualFunctions {
    pub fn enable(pf: &Bdf, count: usize) -> Result<Self> {
        driver::modprobe("pci_pf_stub", &[])?;
        pf.bind(PF_STUB)?;
        let mut enabled = VirtualFunctions { pf: pf.clone(), vfs: Vec::new() };
        pf.write("sriov_drivers_autoprobe", "0")?;
        pf.write("sriov_numvfs", &count.to_string())?;
        for i in 0..count {
            enabled.vfs.push(virtual_function(pf, i)?);
        }
        Ok(enabled)
    }

    /// Returns the virtual functions, in the roles `vf.0`, `vf.1` and so on.
    pub fn devices(&self) -> Vec<Device> {
        self.vfs.clone()
    }

    /// Removes the virtual functions and releases the physical one.
    pub fn disable(pf: &Bdf) -> Result<()> {
        if pf.read("sriov_numvfs")? != "0" {
            // Virtual functions may outlive the driver that enabled them, and only a driver with
            // SR-IOV can remove them.
            if pf.driver().as_deref() != Some(PF_STUB) {
                driver::modprobe("pci_pf_stub", &[])?;
                pf.bind(PF_STUB)?;
            }
            pf.write("sriov_numvfs", "0")?;
        }
        pf.write("sriov_drivers_autoprobe", "1")?;
        let left = pf.read("sriov_numvfs")?;
        ensure!(left == "0", "{pf} still has {left} virtual functions");
        pf.release()
    }
}

impl Drop for VirtualFunctions {
    fn drop(&mut self) {
        let mut there = self.vfs.iter().filter(|vf| vf.path().exists());
        let released = there.try_for_each(|vf| vf.release());
        if let Err(e) = released.and_then(|()| Self::disable(&self.pf)) {
            eprintln!("the virtual functions of {} were not removed: {e:#}", self.pf);
        }
    }
}

pub fn virtual_function(pf: &Bdf, number: usize) -> Result<Device> {
    let address = Bdf::parse(&pf.link(&format!("virtfn{number}"))?)?;
    Ok(Device::new(format!("vf.{number}"), &address))
}
