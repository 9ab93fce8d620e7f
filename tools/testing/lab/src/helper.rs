// SPDX-License-Identifier: GPL-2.0

//! The kernel module `vfio_pci_rs_test_helper`, which puts a device into states that user space
//! cannot cause.

use anyhow::Result;

use crate::driver;
use crate::sysfs::{write_attribute, Bdf};

pub const MODULE: &str = "vfio_pci_rs_test_helper";

/// A device lock that the helper holds until this is dropped.
#[derive(Debug)]
pub struct DeviceLock(());

/// A function that has the IDs of another one until this is dropped.
#[derive(Debug)]
pub struct Identity {
    function: Bdf,
    own: (String, String),
}

impl DeviceLock {
    /// Takes the device lock of `function`; it is held when this returns.
    pub fn hold(function: &Bdf) -> Result<Self> {
        driver::modprobe(MODULE, &[])?;
        set("lock", &function.to_string())?;
        Ok(DeviceLock(()))
    }
}

impl Drop for DeviceLock {
    fn drop(&mut self) {
        if let Err(e) = set("lock", "\n") {
            eprintln!("the device lock was not released: {e:#}");
        }
    }
}

impl Identity {
    /// Gives an unbound function other IDs (hexadecimal, without a prefix).
    pub fn assume(function: &Bdf, vendor: &str, device: &str) -> Result<Self> {
        driver::modprobe(MODULE, &[])?;
        let identity = Identity {
            function: function.clone(),
            own: function.id()?,
        };
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

fn set(parameter: &str, value: &str) -> Result<()> {
    write_attribute(&driver::parameter_path(MODULE, parameter), value)
}
