// SPDX-License-Identifier: GPL-2.0

//! What user space does with an open function: how long a call takes, and who passes it on to
//! vfio-pci-core.

use std::collections::BTreeMap;

use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_MSI_IRQ_INDEX;
use vmm_sys_util::eventfd::EventFd;

use crate::bench::device::AddressSpace;
use crate::bench::device::OpenFunction;
use crate::bench::measure::timed;
use crate::bench::report::Calls;
use crate::bench::report::Report;
use crate::bench::report::Results;
use crate::bench::Bench;
use crate::bench::ALL_CORES;
use crate::error::Doing;
use crate::events::Event;
use crate::events::Kind;
use crate::lab::Bound;
use crate::trace::Tracer;
use crate::Error;
use crate::Result;

pub(super) const NAME: &str = "data-path";

/// How many calls of each kind there are in a round, in all turns together.
const CALLS: usize = 100_000;

/// How often each driver has its turn in a round.
const TURNS: usize = 5;

/// The calls of a turn are timed in so many parts.
///
/// Of all parts of a round, the fastest counts: a host that others use adds to the time of a call,
/// up to as much again, for seconds at a time.
const PARTS: usize = 4;

const CALLS_OF_PART: usize = CALLS / TURNS / PARTS;

const WARM_UP: usize = 2_000;

/// A byte of configuration space that means nothing to the hardware (`PCI_INTERRUPT_LINE`).
const INTERRUPT_LINE: i64 = 0x3c;

/// What passes calls on to the hardware.
const FUNCTIONS: [&str; 4] = [
    "vfio_pci_core_read",
    "vfio_pci_core_write",
    "vfio_pci_core_ioctl",
    "vfio_pci_core_mmap",
];

/// A call, and how it is made so many times.
type Call<'a> = (
    &'static str,
    &'a dyn Fn(&mut OpenFunction, usize) -> Result<()>,
);

pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let function = bench.topology.device("edu.0")?;
    let mut results: BTreeMap<&str, Results<u64>> = BTreeMap::new();
    let mut names = Vec::new();
    bench.in_turns(NAME, &ALL_CORES.repeat(TURNS), |competitor| {
        let bound = Bound::bind(competitor.driver(), [&function])?;
        let space = AddressSpace::new()?;
        let mut opened = space.open(&function)?;
        let config = opened.region(VFIO_PCI_CONFIG_REGION_INDEX)?;
        let bar = opened.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        let event = EventFd::new(0).doing("making an eventfd")?;
        opened.set_event(VFIO_PCI_MSI_IRQ_INDEX, &event)?;

        let calls: [Call<'_>; 3] = [
            ("config read", &|opened, calls| opened.read(config, calls)),
            ("BAR read", &|opened, calls| opened.read(bar, calls)),
            ("SET_IRQS", &|opened, calls| {
                opened.trigger(VFIO_PCI_MSI_IRQ_INDEX, calls)
            }),
        ];
        names = calls.map(|(name, _)| name).to_vec();
        for (name, call) in calls {
            call(&mut opened, WARM_UP)?;
            let parts = results.entry(name).or_default();
            let parts = parts.entry(competitor.name).or_default();
            for _ in 0..PARTS {
                let done = timed(|| call(&mut opened, CALLS_OF_PART))?;
                // CAST: A time of some seconds, and a number of calls.
                parts.push(done.span.length().as_nanos() as u64 / CALLS_OF_PART as u64);
            }
        }
        let callers = callers(&mut opened, config, bar)?;
        for (function, caller) in callers {
            let by_driver = report.vtable.entry(function).or_default();
            by_driver.insert(competitor.name, caller);
        }
        drop(opened);
        bound.release()
    })?;
    for name in names {
        let parts = results.remove(name).unwrap_or_default();
        report.data_path.push(Calls {
            name,
            calls: CALLS,
            results: parts
                .into_iter()
                .map(|(driver, parts)| (driver, fastest_of_rounds(&parts)))
                .collect(),
        });
    }
    Ok(())
}

/// The fastest of the parts of each round, which follow each other.
fn fastest_of_rounds(parts: &[u64]) -> Vec<u64> {
    let rounds = parts.chunks(TURNS * PARTS);
    rounds
        .filter_map(|parts| parts.iter().min().copied())
        .collect()
}

/// Makes one call of each kind; returns who called the functions of vfio-pci-core.
fn callers(
    opened: &mut OpenFunction,
    config: i64,
    bar: i64,
) -> Result<Vec<(&'static str, String)>> {
    let tracer = Tracer::start_on(&FUNCTIONS)?;
    tracer.mark()?;
    opened.read(config, 1)?;
    opened.clear(config + INTERRUPT_LINE)?;
    opened.trigger(VFIO_PCI_MSI_IRQ_INDEX, 1)?;
    drop(opened.map(bar)?);
    let events = tracer.events()?;
    FUNCTIONS
        .into_iter()
        .map(|function| Ok((function, caller(&events, function)?)))
        .collect()
}

/// The one function that called `callee`.
fn caller(events: &[Event], callee: &str) -> Result<String> {
    let mut callers: Vec<&str> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Kind::Call { function, caller } if function == callee => Some(caller.as_str()),
            _ => None,
        })
        .collect();
    callers.sort_unstable();
    callers.dedup();
    match callers[..] {
        [caller] => Ok(caller.to_owned()),
        _ => Err(Error::new(format!(
            "{callee} should have one caller and has {callers:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::events;

    #[test]
    fn the_fastest_part_of_a_round() {
        let mut parts = vec![9; 2 * TURNS * PARTS];
        parts[TURNS * PARTS - 1] = 3;
        parts[TURNS * PARTS] = 4;
        assert_eq!(fastest_of_rounds(&parts), [3, 4]);
    }

    #[test]
    fn callers_of_a_trace() {
        let text = "\
 bench-1  [000] .....  1.000001: vfio_pci_core_read <-vfio_device_fops_read
 bench-1  [000] .....  1.000002: vfio_pci_core_read <-vfio_device_fops_read
 bench-1  [000] .....  1.000003: vfio_pci_core_write <-vfs_write
 bench-1  [000] .....  1.000004: vfio_pci_core_write <-vfio_device_fops_write
";
        let events = events::parse(text).expect("a valid trace");
        let read = caller(&events, "vfio_pci_core_read").expect("one caller");
        assert_eq!(read, "vfio_device_fops_read");
        assert!(caller(&events, "vfio_pci_core_write").is_err());
        assert!(caller(&events, "vfio_pci_core_mmap").is_err());
    }
}
