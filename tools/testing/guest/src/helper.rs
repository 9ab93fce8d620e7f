// SPDX-License-Identifier: GPL-2.0

//! The kernel module `vfio_pci_rs_test_helper`, which puts a device into states that user space
//! cannot bring about.

use crate::driver;
use crate::sysfs::write_attribute;
use crate::sysfs::Bdf;
use crate::Result;

/// The module's name.
pub const MODULE: &str = "vfio_pci_rs_test_helper";

/// A device lock that the kernel holds until this is dropped.
#[derive(Debug)]
pub struct DeviceLock(());

/// A function whose IDs the kernel takes for others until this is dropped.
#[derive(Debug)]
pub struct Identity {
    function: Bdf,
    vendor: String,
    device: String,
}

impl DeviceLock {
    /// Has the helper take the device lock of `function`; it is held when this returns.
    pub fn hold(function: &Bdf) -> Result<Self> {
        driver::modprobe(MODULE, &[])?;
        parameter("lock", &function.to_string())?;
        Ok(DeviceLock(()))
    }
}

impl Drop for DeviceLock {
    fn drop(&mut self) {
        if let Err(e) = parameter("lock", "\n") {
            eprintln!("the device lock was not released: {e}");
        }
    }
}

impl Identity {
    /// Gives an unbound function the IDs of another (hexadecimal, without a prefix).
    pub fn assume(function: &Bdf, vendor: &str, device: &str) -> Result<Self> {
        driver::modprobe(MODULE, &[])?;
        let (own_vendor, own_device) = function.id()?;
        let identity = Identity {
            function: function.clone(),
            vendor: own_vendor,
            device: own_device,
        };
        parameter("identity", &format!("{function} {vendor} {device}"))?;
        Ok(identity)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let Identity {
            function,
            vendor,
            device,
        } = self;
        let back = function
            .unbind()
            .and_then(|()| parameter("identity", &format!("{function} {vendor} {device}")));
        if let Err(e) = back {
            eprintln!("{function} did not get its own IDs back: {e}");
        }
    }
}

fn parameter(name: &str, value: &str) -> Result<()> {
    write_attribute(&driver::parameter_path(MODULE, name), value)
}
