// SPDX-License-Identifier: GPL-2.0

//! The sysfs, tracefs, debugfs, kernel log and vfio sides of a test of a vfio-pci driver.
//!
//! The programs run as root in a virtual machine that does nothing else, so each module owns the
//! machine's state: tracer, driver bindings.

#![forbid(unsafe_code)]

pub mod debugfs;
pub mod driver;
pub mod helper;
pub mod kmsg;
pub mod machine;
pub mod registers;
pub mod report;
pub mod resets;
pub mod sriov;
pub mod sysfs;
pub mod topology;
pub mod trace;
pub mod vfio;
pub mod wait;

use std::io;

use anyhow::Error;
use nix::errno::Errno;

/// Returns the errno behind an error, if a system call failed.
pub fn errno(error: &Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let io = cause.downcast_ref().and_then(io::Error::raw_os_error);
        let raw =
            io.or_else(|| cause.downcast_ref().copied().map(vmm_sys_util::errno::Error::errno));
        raw.map(Errno::from_raw).or_else(|| cause.downcast_ref().copied())
    })
}
