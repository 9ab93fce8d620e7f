// SPDX-License-Identifier: GPL-2.0

//! Resets by root, through sysfs, of a function that is being opened, closed or suspended.
//!
//! All of these save the state of a function to the same place. One that saves it while a reset is
//! in flight saves BARs without addresses, and the reset restores those.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use lab::helper::Marked;
use lab::machine::Lab;
use lab::report::Test;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait::RESET;
use nix::errno::Errno;
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::{gettid, Pid};

use super::cleaning::is_blocked;
use crate::registers::{bars, set_bars, Content, Registers};
use crate::together::result;

const POLL: Duration = Duration::from_millis(2);

/// Gets a function, and the port above it. Returns whether the driver has noticed the reset.
type Case = fn(&[Device; 2]) -> Result<bool>;

/// The operation that meets a reset, and whether a driver can notice that.
const CASES: &[(&str, Case, bool)] =
    &[("open", opened, true), ("close", closed, false), ("suspend", suspended, true)];

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let devices = lab.topology.devices(["pair.0", "pair.port"])?;
    let function = &devices[0];
    lab.driver.load(&[])?;
    let binding = lab.bind([function])?;
    let addresses = bars(function)?;
    let rounds = lab.rounds;
    for (what, case, may_notice) in CASES {
        let (mut noticed, mut lost) = (0, 0);
        for _ in 0..rounds {
            noticed += usize::from(on_one_processor(|| case(&devices))?);
            lab.wait_idle(function)?;
            // Its next use restores the state that was saved last.
            let _awake = Marked::awake(function)?;
            if bars(function)? != addresses {
                lost += 1;
                set_bars(function, &addresses)?;
            }
        }
        t.note(format!("{noticed} of {rounds} resets were noticed at {what}"));
        ensure!(!may_notice || noticed + lost > 0, "no reset was in flight at {what}");
        t.eq(format!("BARs lost in {rounds} resets at {what}"), 0, lost);
    }
    let content = Registers::open(&User::new()?, function)?.content()?;
    t.eq("content after resets by root", Content::ZERO, content);
    binding.release()
}

/// Does `work`, and that of threads that it starts, on one processor.
fn on_one_processor<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || {
        let mut first = CpuSet::new();
        first.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &first)?;
        work()
    };
    thread::scope(|scope| result(scope.spawn(pinned).join()))
}

/// Does `work`, which resets the function, and returns its value. Root resets the function next: it
/// waits for the device lock meanwhile. With a real-time priority, it gets the processor together
/// with the lock. So `work` goes on when root's reset is in flight.
fn beside_root<T>(function: &Device, work: impl FnOnce() -> T) -> Result<T> {
    let (worker, is_done) = (gettid(), AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let root = scope.spawn(|| {
            let thread = gettid().to_string();
            let chrt = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).status()?;
            ensure!(chrt.success(), "chrt: {chrt}");
            ready.send(())?;
            while !is_blocked(worker) && !is_done.load(Ordering::SeqCst) {
                thread::sleep(POLL);
            }
            // Longer than it takes to wake the function.
            thread::sleep(RESET / 4);
            function.write("reset", "1")
        });
        // Without that, the join returns the error.
        let _ = is_ready.recv();
        let value = work();
        is_done.store(true, Ordering::SeqCst);
        result(root.join()).map(|()| value)
    })
}

fn opened([function, _]: &[Device; 2]) -> Result<bool> {
    let user = User::new()?;
    let (opened, time) = beside_root(function, || {
        let start = Instant::now();
        (user.open(function), start.elapsed())
    })?;
    match opened {
        // It may have met root's reset at its own one already.
        Err(error) if lab::errno(&error) == Some(Errno::EAGAIN) => Ok(time > RESET),
        opened => opened.map(|_| false),
    }
}

fn closed([function, _]: &[Device; 2]) -> Result<bool> {
    let opened = User::new()?.open(function)?;
    beside_root(function, || drop(opened)).map(|()| false)
}

/// The function may sleep when root's reset of the bus is in flight.
fn suspended([function, port]: &[Device; 2]) -> Result<bool> {
    let awake = Marked::awake(function)?;
    thread::scope(|scope| {
        let reset = scope.spawn(|| port.write("reset_subordinate", "1"));
        thread::sleep(RESET / 2);
        drop(awake);
        result(reset.join())
    })?;
    Ok(function.read("power/runtime_status")? == "active")
}
