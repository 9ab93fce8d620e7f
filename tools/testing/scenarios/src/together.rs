// SPDX-License-Identifier: GPL-2.0

//! Work that several threads start together, and its times.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Result};
use lab::topology::Device;
use lab::vfio::{Opened, User};
use nix::time::{clock_gettime, ClockId};

/// A thread's result and times, by the monotonic clock and by its own.
#[derive(Debug)]
pub struct Done<T> {
    pub value: T,
    pub start: Duration,
    pub end: Duration,
    pub processor: Duration,
}

type Work<'a, T> = Box<dyn FnOnce() -> Result<T> + Send + 'a>;

impl<T> Done<T> {
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// Returns the result and the times.
    pub fn split(self) -> (T, Done<()>) {
        let Done {
            value,
            start,
            end,
            processor,
        } = self;
        let times = Done {
            value: (),
            start,
            end,
            processor,
        };
        (value, times)
    }
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
pub fn close(opened: Vec<Done<Opened>>) -> Result<Vec<Done<()>>> {
    let close = |done: Done<Opened>| -> Work<'_, ()> {
        Box::new(move || {
            drop(done.value);
            Ok(())
        })
    };
    together(opened.into_iter().map(close).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
