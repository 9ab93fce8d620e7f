// SPDX-License-Identifier: GPL-2.0

//! Kernel modules, and the driver under test, which is one or is built into the kernel.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::debugfs;
use crate::error::Doing;
use crate::sysfs;
use crate::sysfs::write_attribute;
use crate::Error;
use crate::Result;

/// The driver that shows its reset domains; the tests know what to expect there.
const WITH_DOMAINS: &str = "vfio_pci_rs";

/// The driver whose place it can take, under that name.
pub const REPLACED: &str = "vfio-pci";

/// Why a scenario leaves something out that concerns a module.
pub const BUILT_IN: &str = "the driver is built into the kernel";

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

    /// Whether the driver is built into the kernel: there is no module to load or to remove.
    pub fn built_in(&self) -> Result<bool> {
        Ok(module_path(&self.module()).exists() && self.references()?.is_none())
    }

    /// Loads the module with exactly these parameters, removing it first if it is loaded. One that
    /// is built in gets them by sysfs; it is an error if that cannot be.
    pub fn load(&self, parameters: &[&str]) -> Result<()> {
        self.unload()?;
        // Opening a container asks for this module without waiting for it.
        modprobe("vfio_iommu_type1", &[])?;
        if !self.built_in()? {
            modprobe(&self.module(), parameters)?;
            // Where it is: the kernel has no names for addresses in it when it is gone again.
            if let Some(line) = loaded(&self.module())? {
                println!("# loaded {line}");
            }
            return Ok(());
        }
        for path in self.switches()? {
            write_attribute(&path, "N")?;
        }
        for parameter in parameters {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, "Y"));
            write_attribute(&parameter_path(&self.module(), name), value)?;
        }
        Ok(())
    }

    /// Whether a parameter can be given to [`Driver::load`].
    pub fn takes(&self, parameter: &str) -> Result<bool> {
        let path = parameter_path(&self.module(), parameter);
        Ok(!self.built_in()? || self.switches()?.contains(&path))
    }

    /// The parameters that can be changed while the driver is there: all are off by default.
    fn switches(&self) -> Result<Vec<PathBuf>> {
        let directory = module_path(&self.module()).join("parameters");
        let doing = || format!("listing {}", directory.display());
        let mut switches = Vec::new();
        for entry in fs::read_dir(&directory).doing(doing())? {
            let entry = entry.doing(doing())?;
            if !entry.metadata().doing(doing())?.permissions().readonly() {
                switches.push(entry.path());
            }
        }
        Ok(switches)
    }

    /// Removes the module, if it is loaded.
    pub fn unload(&self) -> Result<()> {
        match self.references()? {
            None => Ok(()),
            Some(_) => rmmod(&self.module()),
        }
    }

    /// The module's reference count as `lsmod` shows it, or nothing if it is not loaded, or built
    /// in.
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

/// A module's directory in sysfs; what is built in has one too, if it has parameters.
fn module_path(module: &str) -> PathBuf {
    Path::new("/sys/module").join(module)
}

/// The file of a module's parameter; there is none for a parameter that cannot be read.
pub fn parameter_path(module: &str, parameter: &str) -> PathBuf {
    module_path(module).join("parameters").join(parameter)
}

/// A module's reference count, or nothing if it is not loaded.
pub fn references(module: &str) -> Result<Option<u32>> {
    let Some(line) = loaded(module)? else {
        return Ok(None);
    };
    let count = line.split(' ').nth(2).and_then(|count| count.parse().ok());
    count
        .map(Some)
        .ok_or_else(|| Error::new(format!("/proc/modules has no count in '{line}'")))
}

/// A loaded module's line in `/proc/modules`.
fn loaded(module: &str) -> Result<Option<String>> {
    let modules = fs::read_to_string("/proc/modules").doing("reading /proc/modules")?;
    Ok(modules
        .lines()
        .find(|line| line.split(' ').next() == Some(module))
        .map(str::to_owned))
}

/// Loads a module and what it needs, if it is neither loaded nor built in.
pub fn modprobe(module: &str, parameters: &[&str]) -> Result<()> {
    run(Command::new("modprobe").arg(module).args(parameters))
}

/// The same with the modules below another root directory.
pub fn modprobe_from(root: &Path, module: &str) -> Result<()> {
    run(Command::new("modprobe")
        .arg("--dirname")
        .arg(root)
        .arg(module))
}

/// Removes a module; an error if it is in use or not loaded.
pub fn rmmod(module: &str) -> Result<()> {
    run(Command::new("rmmod").arg(module))
}

/// What a module's file says in all its fields of this name.
pub fn modinfo(module: &str, field: &str) -> Result<Vec<String>> {
    let output = output(Command::new("modinfo").args(["-F", field, module]))?;
    Ok(output.lines().map(str::to_owned).collect())
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().doing(format!("running {shown}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{shown} failed: {}", complaint.trim())))
}
