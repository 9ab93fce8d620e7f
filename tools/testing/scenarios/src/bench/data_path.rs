// SPDX-License-Identifier: GPL-2.0

//! The time of a call on an open function.

use std::collections::BTreeMap;

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

/// How often the drivers alternate in a round.
const TURNS: usize = 5;

/// The calls of a turn are timed in so many parts.
///
/// Only the fastest part of a round counts: a busy host can double the time of a call, for seconds.
const PARTS: usize = 4;

const CALLS_OF_PART: usize = 5_000;
const WARM_UP: usize = 2_000;

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
    let case = |name| format!("data_path_{name}");
    for round in 0..bench.rounds {
        let mut fastest: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        for turn in 0..TURNS {
            let drivers = [C, OURS].into_iter().cycle();
            for driver in drivers.skip(round + turn).take(2) {
                for (name, time) in bench.with(driver, turn_of)? {
                    let fastest = fastest.entry((name, driver)).or_insert(time);
                    *fastest = time.min(*fastest);
                }
            }
        }
        println!("round {} of {}", round + 1, bench.rounds);
        for ((name, driver), time) in fastest {
            let sample = Sample::from([("call_ns", time)]);
            let samples = bench.report.cases.entry(case(name)).or_default();
            samples.entry(driver).or_default().push(sample);
        }
    }
    Ok(())
}

/// Returns the time of each call, in the fastest part of a driver's turn.
fn turn_of(bench: &Bench, competitor: &Competitor) -> Result<Vec<(&'static str, u64)>> {
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

    let mut times = Vec::new();
    for (name, call) in CALLS {
        let repeat = |times: usize| (0..times).try_for_each(|_| call(&device));
        repeat(WARM_UP)?;
        let mut fastest = u64::MAX;
        for _ in 0..PARTS {
            let ((), times) = timed(|| repeat(CALLS_OF_PART))?;
            // CAST: A small constant.
            fastest = fastest.min(nanoseconds(times.length()) / CALLS_OF_PART as u64);
        }
        times.push((name, fastest));
    }
    drop(device);
    bound.release()?;
    Ok(times)
}

fn read(device: &VfioDevice, region: u32) -> Result<()> {
    device.region_read(region, &mut [0; 4], 0);
    Ok(())
}
