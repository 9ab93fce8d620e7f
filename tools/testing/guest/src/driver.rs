// SPDX-License-Identifier: GPL-2.0

//! Kernel modules, and the driver under test as one.

use std::fs;
use std::process::Command;

use crate::debugfs;
use crate::error::Doing;
use crate::sysfs;
use crate::Error;
use crate::Result;

/// The driver that shows its reset domains; the tests know what to expect there.
const WITH_DOMAINS: &str = "vfio_pci_rs";

/// A vfio-pci driver, by its name under `/sys/bus/pci/drivers`.
#[derive(Debug, Clone)]
pub struct Driver {
    name: String,
}

impl Driver {
    /// The driver of this name; nothing is loaded yet.
    pub fn new(name: &str) -> Self {
        Driver {
            name: name.to_owned(),
        }
    }

    /// The driver's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the driver's module.
    pub fn module(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether this driver has a debugfs view of its reset domains and logs its bus resets.
    pub fn shows_domains(&self) -> bool {
        self.name == WITH_DOMAINS
    }

    /// Loads the module with exactly these parameters, removing it first if it is loaded.
    pub fn load(&self, parameters: &[&str]) -> Result<()> {
        self.unload()?;
        // Opening a container asks for this module without waiting for it.
        modprobe("vfio_iommu_type1", &[])?;
        modprobe(&self.module(), parameters)
    }

    /// Removes the module, if it is loaded.
    pub fn unload(&self) -> Result<()> {
        match self.references()? {
            None => Ok(()),
            Some(_) => rmmod(&self.module()),
        }
    }

    /// The module's reference count as `lsmod` shows it, or nothing if it is not loaded.
    pub fn references(&self) -> Result<Option<u32>> {
        references(&self.module())
    }

    /// Whether the driver is registered with the PCI bus.
    pub fn registered(&self) -> bool {
        sysfs::driver_path(&self.name).exists()
    }

    /// Whether the driver's directory in debugfs exists.
    pub fn has_debugfs(&self) -> bool {
        debugfs::directory(&self.module()).exists()
    }
}

/// A module's reference count, or nothing if it is not loaded.
pub fn references(module: &str) -> Result<Option<u32>> {
    let modules = fs::read_to_string("/proc/modules").doing("reading /proc/modules")?;
    let Some(line) = modules
        .lines()
        .find(|line| line.split(' ').next() == Some(module))
    else {
        return Ok(None);
    };
    let count = line.split(' ').nth(2).and_then(|count| count.parse().ok());
    count
        .map(Some)
        .ok_or_else(|| Error::new(format!("/proc/modules has no count in '{line}'")))
}

/// Loads a module and what it needs, if it is not loaded.
pub fn modprobe(module: &str, parameters: &[&str]) -> Result<()> {
    run(Command::new("modprobe").arg(module).args(parameters))
}

/// Removes a module; an error if it is in use or not loaded.
pub fn rmmod(module: &str) -> Result<()> {
    run(Command::new("rmmod").arg(module))
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().doing(format!("running {shown}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{shown} failed: {}", complaint.trim())))
}
