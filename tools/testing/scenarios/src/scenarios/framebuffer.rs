// SPDX-License-Identifier: GPL-2.0

//! A display controller that is not VGA, whose framebuffer the firmware has handed to the kernel.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};
use lab::driver::is_exported;
use lab::machine::Lab;
use lab::report::Test;
use lab::sysfs::Bdf;
use lab::vfio::User;
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;

use crate::registers::{command, COMMAND_MEMORY};

const DRIVERS: &str = "/sys/bus/platform/drivers";
const PIXEL: [u8; 4] = [1, 2, 3, 4];

/// The user gets the BAR of the framebuffer.
pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        t.skip("the framebuffer of the firmware", "this machine has no firmware");
        return Ok(());
    }
    let display = lab.topology.device("display")?;
    let bar = bar_0(&display)?;
    let drivers = ["vesa", "efi", "simple"].map(|of| format!("{DRIVERS}/{of}-framebuffer"));
    if !drivers.iter().any(|driver| Path::new(driver).exists()) {
        t.skip("the framebuffer of the firmware", "this kernel has no driver for it");
        return Ok(());
    }
    t.eq("the framebuffer is there", true, is_framebuffer(&bar)?);
    lab.driver.load_as_is(&[])?;
    let binding = lab.bind([&display])?;
    // The kernel's own core leaves it.
    let is_left = !is_exported("vfio_pci_core_reset_prepare")?;
    t.eq("the framebuffer is left", is_left, is_framebuffer(&bar)?);
    let device = User::new()?.device(&display)?;
    command(&device, COMMAND_MEMORY);
    device.region_write(VFIO_PCI_BAR0_REGION_INDEX, &PIXEL, 0);
    let mut read = [0; 4];
    device.region_read(VFIO_PCI_BAR0_REGION_INDEX, &mut read, 0);
    t.eq("its user finds a pixel", !is_left, read == PIXEL);
    drop(device);
    binding.release()
}

fn bar_0(function: &Bdf) -> Result<RangeInclusive<u64>> {
    let resources = function.read("resource")?;
    let line = resources.split_whitespace().take(2).collect::<Vec<_>>().join("-");
    range(&line.replace("0x", "")).context("no BAR 0")
}

/// Returns whether a driver that is not of PCI has the BAR, or a part of it.
fn is_framebuffer(bar: &RangeInclusive<u64>) -> Result<bool> {
    let is_of_pci = |owner: &str| owner.starts_with("0000:") || owner.starts_with("PCI ");
    Ok(fs::read_to_string("/proc/iomem")?
        .lines()
        .filter_map(|line| line.trim().split_once(" : "))
        .filter_map(|(place, owner)| Some((range(place)?, owner)))
        .any(|(place, owner)| {
            bar.contains(place.start()) && bar.contains(place.end()) && !is_of_pci(owner)
        }))
}

fn range(text: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = text.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(number(first)?..=number(last)?)
}
