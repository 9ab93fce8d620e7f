// SPDX-License-Identifier: GPL-2.0

//! Kernel modules, and the driver under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::sysfs::{driver_path, write_attribute};

/// Our driver under its own name, and the other one, whose place it can take.
const OURS: &str = "vfio_pci_rs";
pub const REPLACED: &str = "vfio-pci";

/// The other driver of our module, for NVMe controllers.
pub const NVME: &str = "vfio-pci-nvme";

/// Our driver under the name of the other one.
const IN_PLACE: &str = "in-place";

/// Parameters with which it resets functions when vfio-pci does, as most tests expect.
pub const AS_C: [&str; 2] = ["skip_clean_reset=0", "background_reset=0"];

/// A vfio-pci driver, by its name under `/sys/bus/pci/drivers`.
#[derive(Debug, Clone)]
pub struct Driver {
    name: String,
    is_ours: bool,
}

impl Driver {
    /// Returns the driver of this name, or ours in the place of vfio-pci if it is `in-place`.
    pub fn new(name: &str) -> Self {
        let is_in_place = name == IN_PLACE;
        let name = if is_in_place { REPLACED } else { name };
        Driver { name: name.to_owned(), is_ours: is_in_place || name == OURS }
    }

    /// Returns whether the driver is ours in the place of vfio-pci.
    pub fn is_in_place(&self) -> bool {
        self.is_ours && self.name == REPLACED
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn module(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Returns whether the driver shows its reset domains in debugfs and logs its bus resets.
    pub fn shows_domains(&self) -> bool {
        self.is_ours
    }

    /// Loads the module with exactly these parameters and [`AS_C`], after removing it if it is
    /// loaded.
    pub fn load(&self, parameters: &[&str]) -> Result<()> {
        match self.shows_domains() {
            true => self.load_as_is(&[&AS_C, parameters].concat()),
            false => self.load_as_is(parameters),
        }
    }

    /// Loads the module like [`Driver::load`], with its own defaults.
    pub fn load_as_is(&self, parameters: &[&str]) -> Result<()> {
        self.unload()?;
        // Opening a container requests this module without waiting for it.
        modprobe("vfio_iommu_type1", &[])?;
        modprobe(&self.module(), parameters)?;
        // Its address, for the kernel log: symbols are gone when the module is removed.
        if let Some(line) = loaded(&self.module())? {
            println!("# loaded {line}");
        }
        Ok(())
    }

    pub fn set(&self, parameter: &str, on: bool) -> Result<()> {
        let path = parameter_path(&self.module(), parameter);
        write_attribute(&path, if on { "Y" } else { "N" })
    }

    pub fn unload(&self) -> Result<()> {
        match self.references()? {
            None => Ok(()),
            Some(_) => rmmod(&self.module()),
        }
    }

    /// Returns the module's reference count, or `None` if it is not loaded.
    pub fn references(&self) -> Result<Option<u32>> {
        references(&self.module())
    }

    pub fn registered(&self) -> bool {
        driver_path(&self.name).exists()
    }
}

pub fn parameter_path(module: &str, parameter: &str) -> PathBuf {
    Path::new("/sys/module").join(module).join("parameters").join(parameter)
}

/// Returns a module's reference count, or `None` if it is not loaded.
pub fn references(module: &str) -> Result<Option<u32>> {
    let Some(line) = loaded(module)? else {
        return Ok(None);
    };
    let count = line.split(' ').nth(2).and_then(|count| count.parse().ok());
    let count = count.with_context(|| format!("/proc/modules has no count in '{line}'"))?;
    Ok(Some(count))
}

/// Returns a loaded module's line in `/proc/modules`.
fn loaded(module: &str) -> Result<Option<String>> {
    let modules = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    let mut lines = modules.lines();
    let line = lines.find(|line| line.split(' ').next() == Some(module));
    Ok(line.map(str::to_owned))
}

/// Returns whether the kernel or a loaded module has a symbol.
pub fn is_exported(symbol: &str) -> Result<bool> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    Ok(symbols.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some(symbol)))
}

/// Loads a module and its dependencies, unless they are loaded or built in.
///
/// An error does not repeat the parameters, so that it is the same for drivers that need others.
pub fn modprobe(module: &str, parameters: &[&str]) -> Result<()> {
    let shown = format!("modprobe {module}");
    run_as(&shown, Command::new("modprobe").arg(module).args(parameters)).map(drop)
}

/// Removes a module; an error if it is in use or not loaded.
pub fn rmmod(module: &str) -> Result<()> {
    run(Command::new("rmmod").arg(module)).map(drop)
}

/// Returns all fields of this name in a module's file.
pub fn modinfo(module: &str, field: &str) -> Result<Vec<String>> {
    let output = run(Command::new("modinfo").args(["-F", field, module]))?;
    Ok(output.lines().map(str::to_owned).collect())
}

/// Runs a program and returns its output; an error with its messages if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    run_as(&shown, command)
}

/// Runs a program like [`run`]; an error calls it `shown`.
fn run_as(shown: &str, command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| shown.to_owned())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    ensure!(output.status.success(), "{shown} failed: {}", errors.trim());
    Ok(text(&output.stdout))
}
