// SPDX-License-Identifier: GPL-2.0

//! Work that several threads start together, its times, and its resets.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Result};
use lab::topology::Device;
use lab::trace::{Counts, Tracer};
use lab::vfio::{Opened, User};
use lab::wait;
use nix::time::{clock_gettime, ClockId};
use serde::Serialize;

/// The result of one measurement; see the module [`crate::bench`] for its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_ns: Option<u64>,
    #[serde(flatten)]
    pub resets: Option<Resets>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resets {
    function_resets: usize,
    bus_resets: usize,
    due: usize,
    lost: usize,
}

/// What a thread did, by the monotonic clock and by its own.
#[derive(Debug)]
pub struct Done<T> {
    pub value: T,
    pub start: Duration,
    pub end: Duration,
    processor: Duration,
}

type Work<'a, T> = Box<dyn FnOnce() -> Result<T> + Send + 'a>;

impl<T> Done<T> {
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

impl Resets {
    pub fn new(made: Counts, due: Counts) -> Self {
        let (bus, bus_due) = (made.bus + made.slot, due.bus + due.slot);
        Resets {
            function_resets: made.flr,
            bus_resets: bus,
            due: due.flr + bus_due,
            lost: due.flr.saturating_sub(made.flr) + bus_due.saturating_sub(bus),
        }
    }
}

impl Sample {
    pub fn of<T>(done: &[Done<T>]) -> Self {
        let start = done.iter().map(|done| done.start).min();
        let end = done.iter().map(|done| done.end).max();
        let wall = end.zip(start).map(|(end, start)| end.saturating_sub(start));
        Sample {
            wall_ns: wall.map(nanoseconds),
            longest_ns: done.iter().map(Done::length).max().map(nanoseconds),
            processor_ns: Some(nanoseconds(done.iter().map(|done| done.processor).sum())),
            ..Sample::default()
        }
    }
}

pub fn nanoseconds(time: Duration) -> u64 {
    // CAST: 64 bits are centuries.
    time.as_nanos() as u64
}

/// Does `work`, and returns its times.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Done<T>> {
    let now = |clock| -> Result<Duration> { Ok(clock_gettime(clock)?.into()) };
    let processor = now(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let start = now(ClockId::CLOCK_MONOTONIC)?;
    let value = work()?;
    let end = now(ClockId::CLOCK_MONOTONIC)?;
    Ok(Done {
        value,
        start,
        end,
        processor: now(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(processor),
    })
}

/// Does all `work` at once, one thread each.
fn together<T: Send>(work: Vec<Work<'_, T>>) -> Result<Vec<Done<T>>> {
    let barrier = Barrier::new(work.len());
    let start = |work: Work<'_, T>| {
        barrier.wait();
        catch_unwind(AssertUnwindSafe(|| timed(work)))
    };
    thread::scope(|scope| {
        let start = &start;
        let spawn = |work| scope.spawn(move || start(work));
        let threads: Vec<_> = work.into_iter().map(spawn).collect();
        // Wait for all threads before returning the error of one.
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let ended = ended.into_iter().map(|ended| match ended {
            Ok(Ok(done)) => done,
            _ => Err(anyhow!("a thread panicked")),
        });
        ended.collect()
    })
}

/// Opens all `functions` at once.
pub fn open<'a>(user: &'a User, functions: &'a [Device]) -> Result<Vec<Done<Opened>>> {
    let open = |function: &'a Device| -> Work<'a, Opened> { Box::new(move || user.open(function)) };
    together(functions.iter().map(open).collect())
}

/// Closes all of `opened` at once.
fn close(opened: Vec<Opened>) -> Result<Vec<Done<()>>> {
    let close = |opened| -> Work<'_, ()> {
        Box::new(move || {
            drop(opened);
            Ok(())
        })
    };
    together(opened.into_iter().map(close).collect())
}

/// Opens all `functions` at once when they are asleep, then closes all at once. Returns a sample
/// of each, given the resets that are due.
pub fn open_and_close(
    tracer: &Tracer,
    user: &User,
    functions: &[Device],
    due: [Counts; 2],
) -> Result<[Sample; 2]> {
    for function in functions {
        wait_asleep(function)?;
    }
    let with_resets = |sample: Sample, made: Counts, due: Counts| Sample {
        resets: Some(Resets::new(made, due)),
        ..sample
    };
    let (done, calls) = tracer.count(|| open(user, functions))?;
    let at_open = with_resets(Sample::of(&done), calls.counts(), due[0]);
    let opened = done.into_iter().map(|done| done.value).collect();
    let (done, calls) = tracer.count(|| close(opened))?;
    let at_close = with_resets(Sample::of(&done), calls.counts(), due[1]);
    Ok([at_open, at_close])
}

/// Waits until an unused function is asleep.
pub fn wait_asleep(function: &Device) -> Result<()> {
    let asleep = |status: &Result<String>| matches!(status, Ok(status) if status == "suspended");
    let status = wait::until(
        wait::SETTLE,
        || function.read("power/runtime_status"),
        asleep,
    )?;
    ensure!(status == "suspended", "{function} is unused and '{status}'");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_and_longest() {
        let done = |start, end| Done {
            value: (),
            start: Duration::from_nanos(start),
            end: Duration::from_nanos(end),
            processor: Duration::from_nanos(3),
        };
        let sample = Sample::of(&[done(5, 30), done(2, 20), done(4, 31)]);
        assert_eq!((sample.wall_ns, sample.longest_ns), (Some(29), Some(27)));
        assert_eq!(sample.processor_ns, Some(9));
    }

    #[test]
    fn a_sample_in_the_results() {
        let sample = Sample {
            wall_ns: Some(5),
            resets: Some(Resets::new(
                Counts {
                    bus: 3,
                    ..Counts::flr(1)
                },
                Counts::flr(7),
            )),
            ..Sample::default()
        };
        let expected = serde_json::json!({
            "wall_ns": 5, "function_resets": 1, "bus_resets": 3, "due": 7, "lost": 6,
        });
        assert_eq!(serde_json::to_value(sample).expect("JSON"), expected);
    }

    #[test]
    fn threads_of_which_some_fail() {
        let work = |n: usize| -> Work<'static, usize> {
            Box::new(move || match n {
                2 => Err(anyhow!("two")),
                3 => panic!("three"),
                n => Ok(n),
            })
        };
        let done = together(vec![work(0), work(1)]).expect("neither fails");
        assert_eq!(done.iter().map(|d| d.value).collect::<Vec<_>>(), [0, 1]);
        assert!(done
            .iter()
            .all(|d| d.end >= d.start && !d.processor.is_zero()));
        assert!(together(vec![work(0), work(2)]).is_err());
        assert!(together(vec![work(3), work(0)]).is_err());
    }
}
