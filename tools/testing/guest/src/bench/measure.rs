// SPDX-License-Identifier: GPL-2.0

//! Work that several threads begin at the same time, when each of them began and ended, and the
//! resets that came of it.

use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::time::clock_gettime;
use nix::time::ClockId;
use nix::unistd::gettid;

use crate::trace::Calls;
use crate::trace::Tracer;
use crate::Error;
use crate::Result;

/// From when to when, by the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub start: Duration,
    /// Its end.
    pub end: Duration,
}

/// What a thread did.
#[derive(Debug)]
pub struct Done<T> {
    /// What came of it.
    pub value: T,
    /// When.
    pub span: Span,
    /// The time that it had a processor for it, in the kernel too.
    pub processor: Duration,
    /// The thread's number.
    pub thread: i32,
}

/// Resets that have to be made, or were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resets {
    /// Of one function.
    pub function: usize,
    /// Of a bus or slot.
    pub bus: usize,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// From when the first began to when the last ended.
    pub wall: Duration,
    /// What the one took that took longest.
    pub longest: Duration,
    /// The time that all had processors, together; nothing, if that was not looked at.
    pub processor: Option<Duration>,
    /// The resets that were made; nothing, if they were not counted.
    pub resets: Option<Resets>,
    /// The resets that had to be made; nothing, if that was not looked at.
    pub due: Option<Resets>,
}

/// What a thread is given to do.
pub type Work<'a, T> = Box<dyn FnOnce() -> Result<T> + Send + 'a>;

impl Span {
    /// How long it is.
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

impl Resets {
    /// How many they are.
    pub fn count(self) -> usize {
        self.function + self.bus
    }

    /// How many of these are missing in `made`.
    fn missing(self, made: Resets) -> usize {
        self.function.saturating_sub(made.function) + self.bus.saturating_sub(made.bus)
    }
}

impl Sample {
    /// Of what was done at these times.
    pub fn of(spans: &[Span]) -> Self {
        let start = spans.iter().map(|span| span.start).min();
        let end = spans.iter().map(|span| span.end).max();
        Sample {
            wall: end
                .unwrap_or_default()
                .saturating_sub(start.unwrap_or_default()),
            longest: spans.iter().map(Span::length).max().unwrap_or_default(),
            processor: None,
            resets: None,
            due: None,
        }
    }

    /// The same with the resets that were `made`, and those that were `due`.
    pub fn with_resets(self, made: Resets, due: Resets) -> Self {
        Sample {
            resets: Some(made),
            due: Some(due),
            ..self
        }
    }

    /// How many of the resets that had to be made were not.
    pub fn lost(&self) -> Option<usize> {
        Some(self.due?.missing(self.resets?))
    }
}

/// The monotonic clock, which is also the tracer's.
pub fn now() -> Result<Duration> {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> Result<Duration> {
    let time = clock_gettime(clock).map_err(|e| Error::io("reading a clock", e.into()))?;
    Ok(time.into())
}

/// Does something, and says when.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Done<T>> {
    let had_before = read(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let start = now()?;
    let value = work()?;
    let end = now()?;
    let has_had = read(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Done {
        value,
        span: Span { start, end },
        processor: has_had.saturating_sub(had_before),
        thread: gettid().as_raw(),
    })
}

/// Has a thread do each of `work`, all at once.
pub fn together<T: Send>(work: Vec<Work<'_, T>>) -> Result<Vec<Done<T>>> {
    let barrier = Barrier::new(work.len());
    thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .map(|work| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    catch_unwind(AssertUnwindSafe(|| timed(work)))
                })
            })
            .collect();
        // All are waited for before an error of one of them is returned.
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ended
            .into_iter()
            .map(|result| match result {
                Ok(Ok(done)) => done,
                _ => Err(Error::new("a thread panicked")),
            })
            .collect()
    })
}

/// Has `work` done by threads, and counts resets meanwhile. `due` are those that have to come of
/// it.
pub fn measure<T>(
    tracer: &Tracer,
    due: Resets,
    work: impl FnOnce() -> Result<Vec<Done<T>>>,
) -> Result<(Sample, Vec<T>)> {
    let (done, calls) = tracer.count(work)?;
    let spans: Vec<Span> = done.iter().map(|done| done.span).collect();
    let sample = Sample {
        processor: Some(done.iter().map(|done| done.processor).sum()),
        ..Sample::of(&spans).with_resets(made(&calls), due)
    };
    Ok((sample, done.into_iter().map(|done| done.value).collect()))
}

/// What the tracer counted.
pub fn made(calls: &Calls) -> Resets {
    let counts = calls.counts();
    Resets {
        function: counts.flr,
        bus: counts.bus + counts.slot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span {
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
        }
    }

    #[test]
    fn wall_and_longest() {
        let sample = Sample::of(&[span(5, 30), span(2, 20), span(4, 31)]);
        assert_eq!(sample.wall, Duration::from_millis(29));
        assert_eq!(sample.longest, Duration::from_millis(27));
        assert_eq!(sample.lost(), None);
    }

    #[test]
    fn lost_resets() {
        let due = Resets {
            function: 7,
            bus: 1,
        };
        let made = Resets {
            function: 1,
            bus: 3,
        };
        let sample = Sample::of(&[]).with_resets(made, due);
        assert_eq!(sample.lost(), Some(6));
        assert_eq!(sample.resets, Some(made));
    }

    #[test]
    fn threads_of_which_some_fail() {
        let work = |n: usize| -> Work<'static, usize> {
            Box::new(move || match n {
                2 => Err(Error::new("two")),
                3 => panic!("three"),
                n => Ok(n),
            })
        };
        let done = together(vec![work(0), work(1)]).expect("neither fails");
        assert_eq!(done.iter().map(|d| d.value).collect::<Vec<_>>(), [0, 1]);
        assert!(done.iter().all(|d| d.span.end >= d.span.start));
        assert!(done.iter().all(|d| !d.processor.is_zero()));
        assert_ne!(done[0].thread, done[1].thread);
        assert!(together(vec![work(0), work(2)]).is_err());
        assert!(together(vec![work(3), work(0)]).is_err());
    }
}
