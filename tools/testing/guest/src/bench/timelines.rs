// SPDX-License-Identifier: GPL-2.0

//! What each function is doing while several are opened or released together.
//!
//! Our driver's tracepoints tell it. Of the others, which have none for their locks, it is known
//! when a thread came to where vfio takes the lock of a set of functions, and when to what the lock
//! is taken for. A function reset is known by its begin.

use std::time::Duration;

use crate::bench::drivers::Competitor;
use crate::bench::drivers::OURS;
use crate::bench::measure::Done;
use crate::bench::measure::Sample;
use crate::bench::measure::Span;
use crate::bench::report::Report;
use crate::bench::report::Stretch;
use crate::bench::report::Timeline;
use crate::bench::together;
use crate::bench::together::wait_asleep;
use crate::bench::Bench;
use crate::bench::EVERYBODY;
use crate::events::Event;
use crate::lab::Bound;
use crate::topology::Device;
use crate::trace::Tracer;
use crate::trace::BUS_RESET;
use crate::trace::FLR;
use crate::tracepoints::SYSTEM;
use crate::vfio::User;
use crate::Result;

/// Functions of vfio and vfio-pci-core, and what whoever has come to them does from then on.
const STEPS: [(&str, &str); 8] = [
    // These take the lock first.
    ("vfio_df_ioctl_bind_iommufd", WAITS),
    ("vfio_df_ioctl_attach_pt", WAITS),
    ("vfio_df_ioctl_detach_pt", WAITS),
    ("vfio_df_unbind_iommufd", WAITS),
    // These are called with the lock held.
    ("vfio_pci_core_enable", OPENS),
    ("vfio_pci_core_close_device", RELEASES),
    ("vfio_iommufd_physical_attach_ioas", BINDS),
    ("vfio_iommufd_physical_detach_ioas", BINDS),
];

/// How long a function has after a reset until it is looked at again (`pcie_flr()`).
const FUNCTION_RESET: Duration = Duration::from_millis(100);

const OPENS: &str = "opens";
const RELEASES: &str = "releases";
const WAITS: &str = "waits";
const BINDS: &str = "binds";
const RESETS: &str = "function reset";
const RESETS_BUS: &str = "bus reset";

/// How it is known what a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// By the driver's tracepoints.
    Points,
    /// By the functions that it calls.
    Calls,
}

/// What is shown of some functions.
pub(super) struct Shown {
    pub(super) name: &'static str,
    functions: fn(&Bench) -> Result<Vec<Device>>,
    /// Name and title of the open, unless it is not shown.
    open: Option<(&'static str, &'static str)>,
    /// The same of the release.
    release: Option<(&'static str, &'static str)>,
}

/// Functions of one bus.
pub(super) static BUS: Shown = Shown {
    name: "bus-timeline",
    functions: |bench| bench.grid(1, 8),
    open: Some(("bus-8-open", "8 functions of one bus opened together")),
    release: Some(("bus-8-release", "8 functions of one bus released together")),
};

/// Functions that share nothing.
pub(super) static BUSES: Shown = Shown {
    name: "buses-timeline",
    functions: |bench| bench.grid(8, 1),
    open: Some(("buses-8-open", "8 functions of 8 buses opened together")),
    release: None,
};

/// Functions that only a reset of their bus cleans.
pub(super) static DIRTY: Shown = Shown {
    name: "dirty-timeline",
    functions: |bench| bench.family("dirty", 8),
    open: None,
    release: Some((
        "dirty-8-release",
        "8 functions without a reset of their own released together",
    )),
};

pub(super) fn run(bench: &Bench, report: &mut Report, shown: &Shown) -> Result<()> {
    let functions = (shown.functions)(bench)?;
    for name in EVERYBODY {
        let competitor = bench.competitor(name)?;
        let loaded = competitor.load()?;
        let bound = Bound::bind(competitor.driver(), &functions)?;
        record(competitor, shown, &functions, report)?;
        bound.release()?;
        loaded.unload()?;
        println!("{}: {name}", shown.name);
    }
    Ok(())
}

fn record(
    competitor: &Competitor,
    shown: &Shown,
    functions: &[Device],
    report: &mut Report,
) -> Result<()> {
    let user = User::with_iommufd()?;
    together::warm_up(&user, functions)?;

    let steps = STEPS.iter().map(|(function, _)| *function);
    let traced: Vec<&str> = [FLR, BUS_RESET].into_iter().chain(steps).collect();
    let tracer = Tracer::start_on(&traced)?;
    // The tracepoints of the third driver tell nothing of its lock.
    let source = if competitor.name == OURS && tracer.trace_points(SYSTEM)? {
        Source::Points
    } else {
        Source::Calls
    };
    let mut add = |named: Option<(&'static str, &'static str)>, base, spans, events: &[Event]| {
        if let Some((name, title)) = named {
            let threads: Vec<(i32, Span)> = spans;
            let all: Vec<Span> = threads.iter().map(|(_, span)| *span).collect();
            report.timelines.push(Timeline {
                name,
                title,
                driver: competitor.name,
                wall: Sample::of(&all).wall,
                rows: rows(functions, &threads, source, base, events),
            });
        }
    };

    wait_asleep(functions)?;
    tracer.mark()?;
    let opened = together::open(&user, functions)?;
    add(shown.open, OPENS, threads(&opened), &tracer.events()?);

    tracer.mark()?;
    let released = together::release(opened.into_iter().map(|done| done.value).collect())?;
    add(
        shown.release,
        RELEASES,
        threads(&released),
        &tracer.events()?,
    );
    Ok(())
}

fn threads<T>(done: &[Done<T>]) -> Vec<(i32, Span)> {
    done.iter().map(|done| (done.thread, done.span)).collect()
}

/// What each function's thread did, since the first one began.
fn rows(
    functions: &[Device],
    threads: &[(i32, Span)],
    source: Source,
    base: &'static str,
    events: &[Event],
) -> Vec<(String, Vec<Stretch>)> {
    let begin = threads.iter().map(|(_, span)| span.start).min();
    let begin = begin.unwrap_or_default();
    functions
        .iter()
        .zip(threads)
        .map(|(function, (thread, span))| {
            let events: Vec<&Event> = events.iter().filter(|e| e.thread == *thread).collect();
            let changes = match source {
                Source::Points => by_points(base, *span, &events),
                Source::Calls => by_calls(base, *span, &events),
            };
            (
                function.bdf().to_string(),
                stretches(begin, *span, &changes),
            )
        })
        .collect()
}

/// From when on a thread does what.
type Change = (Duration, &'static str);

fn by_points(base: &'static str, span: Span, events: &[&Event]) -> Vec<Change> {
    let mut changes = vec![(span.start, base)];
    let mut now = base;
    for (i, event) in events.iter().enumerate() {
        let next = events.get(i + 1).map_or(span.end, |next| next.time);
        if event.calls(FLR) {
            changes.push((event.time, RESETS));
            changes.push((next.min(event.time + FUNCTION_RESET), now));
        }
        if event.point().is_empty() {
            continue;
        }
        now = match (event.point(), event.field("purpose")) {
            ("vfio_pci_rs_wait", _) => WAITS,
            ("vfio_pci_rs_claim", "open") => OPENS,
            ("vfio_pci_rs_claim", "release") => RELEASES,
            ("vfio_pci_rs_claim", "bind" | "unbind" | "attach") => BINDS,
            ("vfio_pci_rs_reset_begin", _) => RESETS_BUS,
            ("vfio_pci_rs_settle" | "vfio_pci_rs_reset_end", _) => base,
            _ => now,
        };
        changes.push((event.time, now));
    }
    changes
}

fn by_calls(base: &'static str, span: Span, events: &[&Event]) -> Vec<Change> {
    let mut changes = vec![(span.start, base)];
    let mut now = base;
    for (i, event) in events.iter().enumerate() {
        let next = events.get(i + 1).map_or(span.end, |next| next.time);
        if event.calls(FLR) {
            changes.push((event.time, RESETS));
            changes.push((next.min(event.time + FUNCTION_RESET), now));
        } else if event.calls(BUS_RESET) {
            // The release waits for what is below the bridge, and is done.
            changes.push((event.time, RESETS_BUS));
            break;
        } else if let Some((_, kind)) = STEPS.iter().find(|(function, _)| event.calls(function)) {
            now = kind;
            changes.push((event.time, now));
        }
    }
    changes
}

/// The same as stretches from one change to the next one, without those in which nothing changes,
/// or that are too short to be told.
fn stretches(begin: Duration, span: Span, changes: &[Change]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (i, (start, kind)) in changes.iter().enumerate() {
        let end = changes.get(i + 1).map_or(span.end, |(next, _)| *next);
        // The tracer rounds to microseconds.
        let (start, end) = ((*start).max(span.start), end.min(span.end));
        if end < start + Duration::from_micros(1) {
            continue;
        }
        let (start, end) = (start - begin, end - begin);
        match stretches.last_mut() {
            Some(last) if last.kind == *kind => last.end = end,
            _ => stretches.push(Stretch { kind, start, end }),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::events;
    use crate::sysfs::Bdf;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn functions(n: usize) -> Vec<Device> {
        let function = |i| {
            let bdf = Bdf::parse(&format!("0000:01:00.{i}")).expect("an address");
            Device::new(format!("grid.0.{i}"), &bdf)
        };
        (0..n).map(function).collect()
    }

    fn shown(rows: &[(String, Vec<Stretch>)], row: usize) -> Vec<(&str, u128, u128)> {
        let stretches = rows[row].1.iter();
        stretches
            .map(|s| (s.kind, s.start.as_millis(), s.end.as_millis()))
            .collect()
    }

    #[test]
    fn our_tracepoints() {
        let text = "\
  a-1  [000] .....  1.010000: vfio_pci_rs_wait: function=0000:01:00.0 scope=bus purpose=bind
  a-1  [000] .....  1.020000: vfio_pci_rs_claim: function=0000:01:00.0 scope=bus purpose=bind waited_ns=9
  a-1  [000] .....  1.025000: vfio_pci_rs_settle: function=0000:01:00.0 scope=bus open=0 bound=1 dirty=0
  a-1  [000] .....  1.025000: vfio_pci_rs_wait: function=0000:01:00.0 scope=bus purpose=open
  a-2  [001] .....  1.026000: vfio_pci_rs_wait: function=0000:01:00.1 scope=bus purpose=open
  a-1  [000] .....  1.030000: vfio_pci_rs_claim: function=0000:01:00.0 scope=bus purpose=open waited_ns=9
  a-1  [000] .....  1.040000: vfio_pci_core_enable <-open_device_callback
  a-1  [000] .....  1.050000: pcie_flr <-pcie_reset_flr
  a-1  [000] .....  1.160000: vfio_pci_rs_settle: function=0000:01:00.0 scope=bus open=1 bound=1 dirty=0
";
        let events = events::parse(text).expect("a valid trace");
        let first = Span {
            start: ms(1005),
            end: ms(1170),
        };
        let second = Span {
            start: ms(1006),
            end: ms(1030),
        };
        let functions = functions(2);
        let threads = [(1, first), (2, second)];
        let rows = rows(&functions, &threads, Source::Points, OPENS, &events);
        assert_eq!(rows[1].0, "0000:01:00.1");
        assert_eq!(
            shown(&rows, 0),
            [
                (OPENS, 0, 5),
                (WAITS, 5, 15),
                (BINDS, 15, 20),
                (WAITS, 20, 25),
                (OPENS, 25, 45),
                (RESETS, 45, 145),
                (OPENS, 145, 165),
            ]
        );
        assert_eq!(shown(&rows, 1), [(OPENS, 1, 21), (WAITS, 21, 25)]);
    }

    #[test]
    fn our_bus_reset() {
        let text = "\
  a-1  [000] .....  1.010000: vfio_pci_rs_claim: function=0000:01:00.0 scope=bus purpose=unbind waited_ns=9
  a-1  [000] .....  1.020000: vfio_pci_rs_settle: function=0000:01:00.0 scope=bus open=0 bound=0 dirty=1
  a-1  [000] .....  1.020000: vfio_pci_rs_reset_begin: function=0000:01:00.0 scope=bus hot=0 functions=8
  a-1  [000] .....  1.030000: pci_bridge_secondary_bus_reset <-pci_bus_reset
  a-1  [000] .....  2.020000: vfio_pci_rs_reset_end: function=0000:01:00.0 scope=bus hot=0 functions=8 error=0 duration_ns=1
";
        let events = events::parse(text).expect("a valid trace");
        let span = Span {
            start: ms(1000),
            end: ms(2030),
        };
        let functions = functions(1);
        let rows = rows(&functions, &[(1, span)], Source::Points, RELEASES, &events);
        assert_eq!(
            shown(&rows, 0),
            [
                (RELEASES, 0, 10),
                (BINDS, 10, 20),
                (RESETS_BUS, 20, 1020),
                (RELEASES, 1020, 1030),
            ]
        );
    }

    #[test]
    fn a_driver_without_tracepoints() {
        let text = "\
  a-1  [000] .....  1.010000: vfio_df_ioctl_bind_iommufd <-vfio_device_fops_unl_ioctl
  a-1  [000] .....  1.020000: vfio_pci_core_enable <-vfio_pci_open_device
  a-1  [000] .....  1.030000: pcie_flr <-pcie_reset_flr
  a-1  [000] .....  1.140000: vfio_df_ioctl_attach_pt <-vfio_device_fops_unl_ioctl
  a-1  [000] .....  1.250000: vfio_iommufd_physical_attach_ioas <-vfio_df_ioctl_attach_pt
  a-2  [000] .....  1.010000: vfio_df_unbind_iommufd <-vfio_device_fops_release
  a-2  [000] .....  1.140000: vfio_pci_core_close_device <-vfio_df_device_last_close
  a-2  [000] .....  1.150000: pcie_flr <-pcie_reset_flr
  a-2  [000] .....  1.200000: pci_bridge_secondary_bus_reset <-pci_bus_reset
";
        let events = events::parse(text).expect("a valid trace");
        let span = Span {
            start: ms(1000),
            end: ms(1300),
        };
        let threads = [(1, span), (2, span), (3, span)];
        let rows = rows(&functions(3), &threads, Source::Calls, OPENS, &events);
        assert_eq!(
            shown(&rows, 0),
            [
                (OPENS, 0, 10),
                (WAITS, 10, 20),
                (OPENS, 20, 30),
                (RESETS, 30, 130),
                (OPENS, 130, 140),
                (WAITS, 140, 250),
                (BINDS, 250, 300),
            ]
        );
        assert_eq!(
            shown(&rows, 1),
            [
                (OPENS, 0, 10),
                (WAITS, 10, 140),
                (RELEASES, 140, 150),
                (RESETS, 150, 200),
                (RESETS_BUS, 200, 300),
            ]
        );
        assert_eq!(shown(&rows, 2), [(OPENS, 0, 300)]);
    }
}
