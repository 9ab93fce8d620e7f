// SPDX-License-Identifier: GPL-2.0

//! The instructions of a call on an open function, user space among them.
//!
//! The machine executes one instruction in a nanosecond of its clock. So the clock counts them, and
//! neither the host nor the place of the code in memory makes a difference.

use anyhow::{ensure, Context, Result};
use lab::machine::Bound;
use lab::vfio::User;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX,
};
use vfio_ioctls::VfioDevice;
use vmm_sys_util::eventfd::EventFd;

use super::measure::{nanoseconds, Sample};
use super::{Bench, Competitor, C, OURS};
use crate::together::timed;

/// The calls of a round are counted in so many parts.
///
/// Only the least of them counts: a timer interrupts the others.
const PARTS: usize = 20;

const CALLS_OF_PART: usize = 100;
const WARM_UP: usize = 1_000;

/// A call, by its name.
type Call = (&'static str, fn(&VfioDevice) -> Result<()>);

const CALLS: [Call; 3] = [
    ("config_read", |device| read(device, VFIO_PCI_CONFIG_REGION_INDEX)),
    ("bar_read", |device| read(device, VFIO_PCI_BAR0_REGION_INDEX)),
    ("set_irqs", |device| {
        let triggered = device.trigger_irq(VFIO_PCI_MSI_IRQ_INDEX, 0);
        triggered.context("triggering an interrupt")
    }),
];

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    bench.in_turns(&[C, OURS], count)
}

/// Returns the instructions of each call, in the part with the least.
fn count(bench: &Bench, competitor: &Competitor) -> Result<Vec<(String, Sample)>> {
    let function = bench.topology.device("edu.0")?;
    let bound = Bound::bind(competitor.driver.name(), [&function])?;
    let device = User::with_iommufd()?.device(&function)?;
    for index in [VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_BAR0_REGION_INDEX] {
        // Reads beyond a region would only be logged.
        let size = device.get_region_size(index);
        ensure!(size >= 4, "{function} has no region {index}");
    }
    let event = EventFd::new(0).context("making an event")?;
    let enabled = device.enable_irq(VFIO_PCI_MSI_IRQ_INDEX, vec![&event]);
    enabled.context("enabling an interrupt")?;

    let mut counts = Vec::new();
    for (name, call) in CALLS {
        let repeat = |times: usize| (0..times).try_for_each(|_| call(&device));
        repeat(WARM_UP)?;
        let mut least = u64::MAX;
        for _ in 0..PARTS {
            let ((), times) = timed(|| repeat(CALLS_OF_PART))?;
            // CAST: A small constant.
            least = least.min(nanoseconds(times.length()) / CALLS_OF_PART as u64);
        }
        counts.push((format!("data_path_{name}"), Sample::from([("instructions", least)])));
    }
    drop(device);
    bound.release()?;
    Ok(counts)
}

fn read(device: &VfioDevice, region: u32) -> Result<()> {
    device.region_read(region, &mut [0; 4], 0);
    Ok(())
}
