// SPDX-License-Identifier: GPL-2.0

//! The kernel module `vfio_pci_rs_test_helper`, which puts a device into states that user space
//! cannot cause.

use std::fs;

use anyhow::{Context, Result};

use crate::driver;
use crate::sysfs::{write_attribute, Bdf};

pub const MODULE: &str = "vfio_pci_rs_test_helper";

/// A device of the denylist: PCI_DEVICE_ID_INTEL_QAT_C62X.
pub const DENYLISTED: (&str, &str) = ("8086", "37c8");

/// A state of a function, which ends when this is dropped.
#[derive(Debug)]
pub struct Marked(&'static str);

/// A function that has the IDs of another one until this is dropped.
#[derive(Debug)]
pub struct Identity {
    function: Bdf,
    own: (String, String),
}

impl Marked {
    /// Takes the device lock of `function`; it is held when this returns.
    pub fn locked(function: &Bdf) -> Result<Self> {
        Self::mark("lock", function)
    }

    /// Disables the runtime PM of `function`, as while the system sleeps.
    pub fn asleep(function: &Bdf) -> Result<Self> {
        Self::mark("asleep", function)
    }

    /// Wakes `function` and keeps it awake. It may sleep as soon as this is dropped.
    pub fn awake(function: &Bdf) -> Result<Self> {
        Self::mark("awake", function)
    }

    /// Marks `function` as one that was pulled out, although it is there.
    pub fn unplugged(function: &Bdf) -> Result<Self> {
        Self::mark("unplugged", function)
    }

    /// Makes the config space of `function` read as all ones.
    pub fn silent(function: &Bdf) -> Result<Self> {
        Self::mark("silent", function)
    }

    /// Marks `function` as one that must not see a bus reset.
    pub fn no_bus_reset(function: &Bdf) -> Result<Self> {
        Self::mark("no_bus_reset", function)
    }

    /// Lets the shutdown of an NVMe controller, which has ended, seem to be in progress.
    pub fn shutting_down(function: &Bdf) -> Result<Self> {
        Self::mark("shutting_down", function)
    }

    /// Leaves `device` and its driver out when the system goes to sleep.
    pub fn sleepless(device: &Bdf) -> Result<Self> {
        Self::mark("sleepless", device)
    }

    fn mark(state: &'static str, function: &Bdf) -> Result<Self> {
        // A process that is being started has the files of this one, which other threads may close.
        if driver::references(MODULE)?.is_none() {
            driver::modprobe(MODULE, &[])?;
        }
        set(state, &function.to_string())?;
        Ok(Marked(state))
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        if let Err(e) = set(self.0, "\n") {
            eprintln!("the mark '{}' stays: {e:#}", self.0);
        }
    }
}

impl Identity {
    /// Gives an unbound function other IDs (hexadecimal, without a prefix).
    pub fn assume(function: &Bdf, vendor: &str, device: &str) -> Result<Self> {
        driver::modprobe(MODULE, &[])?;
        let identity = Identity { function: function.clone(), own: function.id()? };
        set("identity", &format!("{function} {vendor} {device}"))?;
        Ok(identity)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let (function, (vendor, device)) = (&self.function, &self.own);
        let back = function
            .unbind()
            .and_then(|()| set("identity", &format!("{function} {vendor} {device}")));
        if let Err(e) = back {
            eprintln!("{function} did not get its own IDs back: {e:#}");
        }
    }
}

/// Returns the value of `work`, and how many secondary bus resets in it had not locked their bridge.
pub fn count_unlocked<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
    driver::modprobe(MODULE, &[])?;
    let before = unlocked()?;
    let value = work()?;
    Ok((value, unlocked()? - before))
}

fn unlocked() -> Result<usize> {
    let path = driver::parameter_path(MODULE, "unlocked");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim_end().parse()?)
}

fn set(parameter: &str, value: &str) -> Result<()> {
    write_attribute(&driver::parameter_path(MODULE, parameter), value)
}
