// SPDX-License-Identifier: GPL-2.0

//! Virtual functions, made by a physical function that `pci-pf-stub` drives.

use std::fs;

use crate::driver;
use crate::error::Doing;
use crate::sysfs::Bdf;
use crate::topology::Device;
use crate::Error;
use crate::Result;

/// The driver that does nothing but enable SR-IOV.
pub const PF_STUB: &str = "pci-pf-stub";

/// A physical function with its virtual functions enabled and bound to no driver. Dropping it
/// removes the virtual functions and releases the physical one.
#[derive(Debug)]
pub struct VirtualFunctions {
    pf: Bdf,
    vfs: Vec<Bdf>,
}

impl VirtualFunctions {
    /// Enables `count` virtual functions of `pf`.
    pub fn enable(pf: &Bdf, count: usize) -> Result<Self> {
        driver::modprobe("pci_pf_stub", &[])?;
        pf.bind(PF_STUB)?;
        let mut enabled = VirtualFunctions {
            pf: pf.clone(),
            vfs: Vec::new(),
        };
        pf.write("sriov_drivers_autoprobe", "0")?;
        pf.write("sriov_numvfs", &count.to_string())?;
        for i in 0..count {
            let link = pf.path().join(format!("virtfn{i}"));
            let target = fs::read_link(&link).doing(format!("reading {}", link.display()))?;
            let name = target
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or("");
            enabled.vfs.push(Bdf::parse(name)?);
        }
        Ok(enabled)
    }

    /// The virtual functions, in the roles `vf.0`, `vf.1` and so on.
    pub fn devices(&self) -> Vec<Device> {
        let numbered = self.vfs.iter().enumerate();
        numbered
            .map(|(i, vf)| Device::new(format!("vf.{i}"), vf))
            .collect()
    }

    /// Removes the virtual functions and releases the physical one.
    pub fn disable(pf: &Bdf) -> Result<()> {
        let enabled = pf.read("sriov_numvfs")?;
        if enabled != "0" {
            // Virtual functions may outlive the driver that made them; only a driver that
            // supports SR-IOV can remove them.
            if pf.driver().as_deref() != Some(PF_STUB) {
                driver::modprobe("pci_pf_stub", &[])?;
                pf.bind(PF_STUB)?;
            }
            pf.write("sriov_numvfs", "0")?;
        }
        pf.write("sriov_drivers_autoprobe", "1")?;
        let left = pf.read("sriov_numvfs")?;
        if left != "0" {
            return Err(Error::new(format!(
                "{pf} still has {left} virtual functions"
            )));
        }
        pf.release()
    }
}

impl Drop for VirtualFunctions {
    fn drop(&mut self) {
        for vf in &self.vfs {
            if let Err(e) = vf.release() {
                eprintln!("{vf} was not released: {e}");
            }
        }
        if let Err(e) = Self::disable(&self.pf) {
            eprintln!("the virtual functions of {} were not removed: {e}", self.pf);
        }
    }
}
