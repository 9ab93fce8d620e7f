// SPDX-License-Identifier: GPL-2.0

//! What the guest programs share: the sysfs, tracefs, debugfs, kernel log, vfio and QEMU sides of
//! a test of a vfio-pci driver, one module each.
//!
//! The programs run as root in a virtual machine that has nothing else to do, so every module
//! takes the machine's state (tracer, driver bindings) as its own.

pub mod bench;
pub mod debugfs;
pub mod driver;
pub mod error;
pub mod events;
pub mod faults;
pub mod helper;
pub mod kmsg;
pub mod ktap;
pub mod lab;
pub mod qemu;
pub mod scenarios;
pub mod sriov;
pub mod sysfs;
pub mod topology;
pub mod trace;
pub mod tracepoints;
pub mod vfio;
pub mod wait;

pub use error::{Error, Result};
