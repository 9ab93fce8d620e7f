// SPDX-License-Identifier: GPL-2.0

//! Scenario 17: a function that is opened for a virtual machine of KVM keeps the machine, until it is
//! released. No code runs in the machine.

use std::fs;

use kvm_bindings::kvm_create_device;
use kvm_bindings::kvm_device_type_KVM_DEV_TYPE_VFIO;
use kvm_ioctls::DeviceFd;
use kvm_ioctls::Kvm;
use kvm_ioctls::VmFd;

use crate::driver;
use crate::error::Doing;
use crate::ktap::Test;
use crate::lab::Lab;
use crate::vfio::User;
use crate::wait;
use crate::Error;
use crate::Result;

/// What QEMU emulates is a processor of AMD.
const MODULE: &str = "kvm_amd";

const MACHINES: &str = "/sys/kernel/debug/kvm";

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    if let Err(e) = driver::modinfo(MODULE, "filename") {
        t.skip("a function keeps its virtual machine", e);
        return Ok(());
    }
    driver::modprobe(MODULE, &[])?;
    let kept = kept(lab, t);
    driver::rmmod(MODULE)?;
    kept
}

fn kept(lab: &Lab, t: &mut Test) -> Result<()> {
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
    // The function, open through its own file, is all that is left.
    drop((user, machine));
    exists(t, "that is closed, for an open function", true)?;
    lab.state(t, &device, "for a machine that is closed", "open")?;
    drop(opened);
    exists(t, "that is closed, for a released function", false)?;
    lab.power(t, &device, "released", "D3hot")?;
    binding.release()?;
    lab.unreferenced(t)
}

/// A virtual machine, and its VFIO device, which wants to be told of groups.
fn machine() -> Result<(VmFd, DeviceFd)> {
    let kvm = Kvm::new().map_err(|e| Error::io("opening /dev/kvm", e.into()))?;
    let machine = kvm
        .create_vm()
        .map_err(|e| Error::io("creating a virtual machine", e.into()))?;
    let mut vfio = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
        fd: 0,
        flags: 0,
    };
    let vfio = machine
        .create_device(&mut vfio)
        .map_err(|e| Error::io("creating a machine's VFIO device", e.into()))?;
    Ok((machine, vfio))
}

/// Asserts whether a machine exists.
fn exists(t: &mut Test, what: &str, expected: bool) -> Result<()> {
    let limit = if expected { wait::STAY } else { wait::SETTLE };
    let got = wait::until(limit, machines, |got| matches!(got, Ok(0)))? > 0;
    t.observe(format!("there is a machine {what}"), got);
    t.eq(
        format!("there is a machine {what}: {expected}"),
        expected,
        got,
    );
    Ok(())
}

/// How many machines there are: each has a directory, called after a process and a file descriptor.
fn machines() -> Result<usize> {
    let doing = || format!("listing {MACHINES}");
    let mut count = 0;
    for entry in fs::read_dir(MACHINES).doing(doing())? {
        let name = entry.doing(doing())?.file_name();
        count += usize::from(name.to_string_lossy().contains('-'));
    }
    Ok(count)
}
