// SPDX-License-Identifier: GPL-2.0

//! The registers of an NVMe controller, as its user sees them.

use std::fmt;

use anyhow::{ensure, Context, Result};
use lab::sysfs::{capability, Bdf, CAPABILITY_PM};
use lab::vfio::User;
use raw::{File, Request};
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, VFIO_DEVICE_FEATURE_SET, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX,
};
use vfio_ioctls::VfioDevice;

use crate::registers::{command, COMMAND, COMMAND_MEMORY};

/// QEMU's vendor ID of it.
pub const NVME: &str = "1b36";

/// Values of AQA: the sizes of the two admin queues, or none, which is an error.
pub const QUEUES: u32 = 0x001f_001f;
pub const NO_QUEUES: u32 = 0;

/// Values of CC.SHN.
pub const ABRUPT: u32 = 2;

const PM_CONTROL: u64 = 4;
const D3HOT: u16 = 3;

const CC: u64 = 0x14;
const CC_ENABLE: u32 = 0x0046_0001;
const CC_SHN: u32 = 14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const QUEUE: u32 = 0x0010_0000;

/// An open controller whose memory is enabled.
pub struct Controller(VfioDevice);

/// The state of a controller, as its registers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// CC.SHN, the shutdown that was asked for.
    pub asked: u32,
    /// CSTS: the shutdown that is complete, a fatal error, and whether it is ready.
    pub status: u32,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHN {} CSTS {:#x}", self.asked, self.status)
    }
}

impl Controller {
    pub fn open(user: &User, function: &Bdf) -> Result<Self> {
        let device = user.device(function)?;
        command(&device, COMMAND_MEMORY);
        Ok(Controller(device))
    }

    pub fn into_device(self) -> VfioDevice {
        self.0
    }

    pub fn status(&self) -> Status {
        Status { asked: (self.read(CC) >> CC_SHN) & 3, status: self.read(CSTS) }
    }

    /// Enables the controller. Its admin queues stay empty.
    pub fn enable(&self, queues: u32) -> Result<()> {
        for (at, value) in [
            (AQA, queues),
            (ASQ, QUEUE),
            (ASQ + 4, 0),
            (ACQ, 2 * QUEUE),
            (ACQ + 4, 0),
            (CC, CC_ENABLE),
        ] {
            self.write(at, value);
        }
        let status = self.read(CSTS);
        ensure!((1..=2).contains(&status), "CSTS is {status:#x} after the controller was enabled");
        Ok(())
    }

    /// Asks for a shutdown.
    pub fn shut_down(&self, how: u32) {
        self.write(CC, CC_ENABLE | (how << CC_SHN));
    }

    pub fn turn_memory_off(&self) {
        self.write_config(COMMAND, 0);
    }

    /// Writes D3hot to `function`, which is that of the controller.
    pub fn set_d3hot(&self, function: &Bdf) -> Result<()> {
        let pm = capability(&function.config()?, CAPABILITY_PM).context("no power management")?;
        self.write_config(u64::from(pm) + PM_CONTROL, D3HOT);
        Ok(())
    }

    /// Lets the kernel put the function to sleep.
    pub fn sleep(&self) -> Result<()> {
        let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
        let words = [8, flags].map(u32::to_ne_bytes);
        raw::ask(&File::of_device(&self.0)?, Request::FEATURE, words.as_flattened())?;
        Ok(())
    }

    fn read(&self, at: u64) -> u32 {
        let mut bytes = [0xff; 4];
        self.0.region_read(VFIO_PCI_BAR0_REGION_INDEX, &mut bytes, at);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, at: u64, value: u32) {
        self.0.region_write(VFIO_PCI_BAR0_REGION_INDEX, &value.to_le_bytes(), at);
    }

    fn write_config(&self, at: u64, value: u16) {
        self.0.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &value.to_le_bytes(), at);
    }
}
