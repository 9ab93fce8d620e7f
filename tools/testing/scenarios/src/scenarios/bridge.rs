// SPDX-License-Identifier: GPL-2.0

//! The lock of the bridge above a function, which a reset needs only if it goes through the bridge.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Result};
use lab::helper;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF, PF_IN_SLOT};
use lab::report::Test;
use lab::sriov::VirtualFunctions;
use lab::sysfs::Bdf;
use lab::topology::Device;
use lab::trace::Counts;
use lab::vfio::User;
use lab::wait;

use crate::bench::measure::{open_and_close, Order};

const NONE: Counts = Counts::NONE;
const VFS: usize = 7;
const ROUNDS: usize = 7;

/// The longest that a function may ignore a function level reset, and so the kernel's wait for it.
const FLR_WAIT: Duration = Duration::from_millis(100);

/// The methods by which a function is reset, until this is dropped.
struct Methods<'a>(&'a Bdf);

impl<'a> Methods<'a> {
    fn choose(function: &'a Bdf, methods: &str) -> Result<Self> {
        function.write("reset_method", methods)?;
        Ok(Methods(function))
    }
}

impl Drop for Methods<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.0.write("reset_method", "default") {
            eprintln!("{} keeps other reset methods: {e:#}", self.0);
        }
    }
}

/// VFs that are closed together do not lose their resets to each other.
pub(super) fn closed_together(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    for (role, place) in [(PF, "a port"), (PF_IN_SLOT, "a slot")] {
        let (due, lost) = lost_together(lab, t, role)?;
        for (when, lost) in [("open", lost[0]), ("close", lost[1])] {
            t.eq(
                format!("lost of {due} resets at {when}, below {place}"),
                0,
                lost,
            );
        }
    }
    lab.unreferenced(t)
}

/// Opens and closes the VFs of the PF `role` together, in rounds. Returns how many resets were due
/// at each, and how many were lost at open and at close.
pub fn lost_together(lab: &Lab, t: &mut Test<'_>, role: &str) -> Result<(usize, [u64; 2])> {
    let pf = lab.topology.device(role)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    let vfs = enabled.devices();
    let methods = vfs[0].read("reset_method")?;
    t.note(format!(
        "a VF of {role} lists the reset methods '{methods}'"
    ));
    let binding = lab.bind(&vfs)?;
    let user = User::new()?;
    let mut lost = [0, 0];
    for _ in 0..ROUNDS {
        let due = [Counts::flr(VFS); 2];
        let samples = open_and_close(&lab.tracer, &user, &vfs, due, Order::Together)?;
        for (lost, sample) in lost.iter_mut().zip(samples) {
            *lost += sample["lost"];
        }
    }
    drop(user);
    binding.release()?;
    Ok((VFS * ROUNDS, lost))
}

/// A reset that goes through the bridge locks it.
pub(super) fn locked(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&["enable_sriov=1"])?;
    let pf = lab.topology.device(PF)?;
    let in_slot = lab.topology.device(PF_IN_SLOT)?;
    for methods in ["bus", "flr bus"] {
        let bus = methods == "bus";
        let expected = |count| if bus { count } else { Counts::flr(1) };
        alone(lab, t, &pf, methods, expected(Counts::bus(1)))?;
        alone(lab, t, &in_slot, methods, expected(Counts::slot(1)))?;
    }
    beside_vfs(lab, t, &pf)?;
    lab.unreferenced(t)
}

/// The unbind, which holds the device lock, resets a function that was open until then.
pub(super) fn unbound_while_open(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    if !lab.driver.shows_domains() {
        t.skip("unbinding resets what was open", "vfio-pci does not");
        return Ok(());
    }
    lab.driver.load(&[])?;
    let pf = lab.topology.device(PF)?;
    unbound(lab, t, &pf, "flr bus", Counts::flr(1))?;
    unbound(lab, t, &pf, "bus", Counts::bus(1))?;
    lab.unreferenced(t)
}

/// A function alone on its bus is reset by its first method.
fn alone(lab: &Lab, t: &mut Test<'_>, pf: &Device, methods: &str, reset: Counts) -> Result<()> {
    let _methods = Methods::choose(pf, methods)?;
    let binding = lab.bind([pf])?;
    let user = User::new()?;
    let when = |what| format!("at {what} of {} by '{methods}'", pf.role());
    // PCI does not lock the bridge at open.
    let opened = lab.counted(t, &when("open"), reset, || user.open(pf))?;
    let close = || lab.close(t, &when("close"), reset, opened);
    let ((), unlocked) = helper::count_unlocked(close)?;
    t.seen(format!("bridges not locked {}", when("close")), 0, unlocked);
    drop(user);
    binding.release()
}

/// `bus` does not work for a function whose bus has others by the time of the close.
fn beside_vfs(lab: &Lab, t: &mut Test<'_>, pf: &Device) -> Result<()> {
    let _methods = Methods::choose(pf, "bus")?;
    let binding = lab.bind([pf])?;
    let user = User::new()?;
    let opened = user.open(pf)?;
    pf.write("sriov_drivers_autoprobe", "0")?;
    pf.write("sriov_numvfs", &VFS.to_string())?;
    let close = || lab.close(t, "when a PF is closed beside its VFs", NONE, opened);
    let ((), unlocked) = helper::count_unlocked(close)?;
    t.seen("bridges not locked beside VFs", 0, unlocked);
    pf.write("sriov_numvfs", "0")?;
    pf.write("sriov_drivers_autoprobe", "1")?;
    drop(user);
    binding.release()
}

fn unbound(lab: &Lab, t: &mut Test<'_>, pf: &Device, methods: &str, reset: Counts) -> Result<()> {
    let _methods = Methods::choose(pf, methods)?;
    let binding = lab.bind([pf])?;
    let user = User::new()?;
    let opened = user.open(pf)?;
    let mut mark = Mark::here()?;
    let what = format!("when it is unbound while open, by '{methods}'");
    let done = AtomicBool::new(false);
    let unbind = || {
        thread::scope(|scope| {
            let unbinding = scope.spawn(|| pf.unbind());
            thread::sleep(wait::STAY);
            let reading = scope.spawn(|| longest_read(pf, &done));
            drop(opened);
            let unbound = unbinding.join();
            done.store(true, Ordering::Relaxed);
            let longest = reading.join().map_err(|_| anyhow!("a thread panicked"))??;
            unbound.map_err(|_| anyhow!("a thread panicked"))??;
            Ok(longest)
        })
    };
    let count = || lab.counted(t, &what, reset, unbind);
    let (longest, unlocked) = helper::count_unlocked(count)?;
    t.eq(format!("bridges not locked {what}"), 0, unlocked);
    t.check(
        format!("reading the config space waits for the reset {what}"),
        longest >= FLR_WAIT / 2,
        || format!("the longest read took {longest:?}"),
    );
    let lines = mark.lines()?;
    for (part, expected) in [
        ("function reset done before it is unbound", 1),
        ("is being unbound", 1),
        ("next attempt in", 0),
        (" failed with error", 0),
    ] {
        let found = lines.iter().filter(|line| line.contains(part)).count();
        if !t.eq(format!("log lines with '{part}' {what}"), expected, found) {
            t.note(lines.join("\n"));
        }
    }
    drop(user);
    binding.release()
}

/// Reads the config space of `function` until `done`, and returns how long the longest read took.
fn longest_read(function: &Bdf, done: &AtomicBool) -> Result<Duration> {
    let path = function.path().join("config");
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let start = Instant::now();
        fs::read(&path)?;
        longest = longest.max(start.elapsed());
    }
    Ok(longest)
}
