// SPDX-License-Identifier: GPL-2.0

//! Work that several threads start together, and its times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Result};
use lab::topology::Device;
use lab::vfio::{Opened, User};
use nix::time::{clock_gettime, ClockId};

/// The times of a thread's work, by the monotonic clock and by its own.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub start: Duration,
    pub end: Duration,
    pub processor: Duration,
}

type Work<'a, T> = Box<dyn FnOnce() -> Result<T> + Send + 'a>;

impl Times {
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Times)> {
    let now = |clock| -> Result<Duration> { Ok(clock_gettime(clock)?.into()) };
    let processor = now(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let start = now(ClockId::CLOCK_MONOTONIC)?;
    let value = work()?;
    let end = now(ClockId::CLOCK_MONOTONIC)?;
    let processor = now(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(processor);
    let times = Times { start, end, processor };
    Ok((value, times))
}

/// Does all `work` at once, one thread each.
fn together<T: Send>(work: Vec<Work<'_, T>>) -> Result<Vec<(T, Times)>> {
    let barrier = Barrier::new(work.len());
    let start = |work: Work<'_, T>| {
        barrier.wait();
        timed(work)
    };
    thread::scope(|scope| {
        let start = &start;
        let spawn = |work| scope.spawn(move || start(work));
        let threads: Vec<_> = work.into_iter().map(spawn).collect();
        // Wait for all threads before returning the error of one.
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ended.into_iter().map(result).collect()
    })
}

/// Repeats each of `uses` in a thread until `work` is done, and returns how long the longest took.
pub fn meanwhile(
    uses: &[&(dyn Fn() -> Result<()> + Sync)],
    work: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let is_done = AtomicBool::new(false);
    let repeat = |once: &dyn Fn() -> Result<()>| -> Result<Duration> {
        let mut longest = Duration::ZERO;
        while !is_done.load(Ordering::Relaxed) {
            longest = longest.max(timed(once)?.1.length());
        }
        Ok(longest)
    };
    thread::scope(|scope| {
        let repeat = &repeat;
        let users: Vec<_> = uses.iter().map(|once| scope.spawn(move || repeat(once))).collect();
        let worked = work();
        is_done.store(true, Ordering::Relaxed);
        let ended: Vec<_> = users.into_iter().map(|user| user.join()).collect();
        worked?;
        ended.into_iter().try_fold(Duration::ZERO, |longest, ended| Ok(longest.max(result(ended)?)))
    })
}

/// Returns the result of a thread that has ended.
pub fn result<T>(ended: thread::Result<Result<T>>) -> Result<T> {
    ended.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

pub fn open<'a>(user: &'a User, functions: &'a [Device]) -> Result<Vec<(Opened, Times)>> {
    let open = |function: &'a Device| -> Work<'a, Opened> { Box::new(move || user.open(function)) };
    together(functions.iter().map(open).collect())
}

pub fn close(opened: Vec<(Opened, Times)>) -> Result<Vec<Times>> {
    let close = |(opened, _)| -> Work<'_, ()> {
        Box::new(move || {
            drop(opened);
            Ok(())
        })
    };
    let closed = together(opened.into_iter().map(close).collect())?;
    Ok(closed.into_iter().map(|((), times)| times).collect())
}
