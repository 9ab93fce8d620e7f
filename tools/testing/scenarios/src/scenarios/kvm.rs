// SPDX-License-Identifier: GPL-2.0

//! A function that is opened for a virtual machine of KVM keeps the machine until it is closed. No
//! code runs in the machine.

use std::fs;

use anyhow::{Context, Result};
use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::{DeviceFd, Kvm, VmFd};
use lab::machine::Lab;
use lab::report::Test;
use lab::vfio::User;
use lab::wait;

use super::with_module;

/// QEMU emulates a processor of AMD.
const MODULE: &str = "kvm_amd";

const MACHINES: &str = "/sys/kernel/debug/kvm";

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    with_module(t, "a function keeps its virtual machine", MODULE, |t| kept(lab, t))
}

fn kept(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let device = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&device])?;

    let (machine, vfio) = machine()?;
    let user = User::new()?;
    let opened = user.open(&device)?;
    exists(t, "that is open, for no function", true)?;
    drop((machine, vfio));
    exists(t, "that is closed, for no function", false)?;
    drop((opened, user));

    let (machine, vfio) = self::machine()?;
    let user = User::with_machine(vfio)?;
    let opened = user.open(&device)?;
    // Only the function remains, open by its own file.
    drop((user, machine));
    exists(t, "that is closed, for an open function", true)?;
    lab.state(t, &device, "for a machine that is closed", "open")?;
    drop(opened);
    exists(t, "that is closed, for a closed function", false)?;
    lab.power(t, &device, "closed", "D3hot")?;
    binding.release()
}

/// Returns a virtual machine, and its VFIO device, which groups are added to.
fn machine() -> Result<(VmFd, DeviceFd)> {
    let kvm = Kvm::new().context("opening /dev/kvm")?;
    let machine = kvm.create_vm().context("creating a virtual machine")?;
    let mut vfio = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
    let vfio = machine.create_device(&mut vfio);
    Ok((machine, vfio.context("creating a VFIO device")?))
}

fn exists(t: &mut Test<'_>, what: &str, expected: bool) -> Result<()> {
    let limit = if expected { wait::STAY } else { wait::SETTLE };
    let got = wait::until(limit, machines, |got| matches!(got, Ok(0)))? > 0;
    t.seen(format!("there is a machine {what}"), expected, got);
    Ok(())
}

/// Returns the number of machines. Each has a directory `PID-FD`.
fn machines() -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(MACHINES).context(MACHINES)? {
        count += usize::from(entry?.file_name().to_string_lossy().contains('-'));
    }
    Ok(count)
}
