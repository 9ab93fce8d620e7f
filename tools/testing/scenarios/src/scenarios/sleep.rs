// SPDX-License-Identifier: GPL-2.0

//! Functions while the system sleeps: idle and clean, open, or about to be cleaned.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::slice;

use anyhow::{Context, Result};
use lab::driver;
use lab::helper::Marked;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::sysfs::{write_attribute, Bdf};
use lab::topology::Device;
use lab::vfio::User;

use super::clean::{settled, unused};
use crate::registers::{find, Content, Registers};

const STATE: &str = "/sys/power/state";
const TEST: &str = "/sys/power/pm_test";
const HIBERNATION: &str = "/sys/power/disk";

/// A memory disk of this many KiB, for the image of a hibernation.
const SWAP: &str = "/dev/ram0";
const SWAP_SIZE: &str = "rd_size=1048576";

/// How often to try to freeze the work on a function before it gives up.
const ATTEMPTS: usize = 5;

/// A sleep, from which the system wakes by itself.
struct Sleep {
    what: &'static str,
    state: &'static str,
    /// How far the system falls asleep.
    test: &'static str,
    /// The resets when a function is opened that was idle and clean.
    at_open: Counts,
}

/// The kernel lets functions sleep on that are asleep already.
const SUSPENDED: Sleep =
    Sleep { what: "suspended", state: "freeze", test: "platform", at_open: Counts::NONE };

/// The kernel wakes all functions before it writes the image, and reads it back at once.
const HIBERNATED: Sleep =
    Sleep { what: "hibernated", state: "disk", test: "none", at_open: Counts::flr(1) };

/// Only user space and work are frozen.
const FROZEN: Sleep =
    Sleep { what: "frozen", state: "freeze", test: "freezer", at_open: Counts::NONE };

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let states = fs::read_to_string(STATE).unwrap_or_default();
    let can = |sleep: &Sleep| states.split_whitespace().any(|state| state == sleep.state);
    let flr = &lab.topology.family("flr", 6)?[..6];
    lab.driver.load_as_is(&[])?;
    if can(&FROZEN) {
        frozen(lab, t, &flr[0])?;
    }
    // The root's driver would refuse.
    let _awake = root()?.as_ref().map(Marked::sleepless).transpose()?;
    let swap = can(&HIBERNATED).then(Swap::new).transpose()?;
    for sleep in [SUSPENDED, HIBERNATED] {
        match can(&sleep) {
            true => asleep(lab, t, &sleep, flr)?,
            false => t.skip(sleep.what, format!("the kernel has the states '{states}'")),
        }
    }
    drop(swap);
    Ok(())
}

impl Sleep {
    fn sleep(&self) -> Result<()> {
        write_attribute(Path::new(TEST), self.test)?;
        let slept = write_attribute(Path::new(STATE), self.state);
        write_attribute(Path::new(TEST), "none")?;
        slept
    }
}

/// One function is idle and clean, one is open, the others are closed just before.
fn asleep(lab: &Lab, t: &mut Test<'_>, sleep: &Sleep, flr: &[Device]) -> Result<()> {
    let what = sleep.what;
    // It keeps its registers in D3hot, and no reset but that of its bus clears them.
    let held = lab.topology.device("bus.a")?;
    let binding = lab.bind(flr.iter().chain([&held]))?;
    settled(lab, flr)?;
    let user = User::new()?;
    let open = Registers::open(&user, &held)?;
    open.write()?;
    let (idle, used) = flr.split_first().context("there is a function")?;
    let other = User::new()?;
    let closed = used.iter().map(|f| Registers::open(&other, f));
    let closed = closed.collect::<Result<Vec<_>>>()?;
    closed.iter().try_for_each(Registers::write)?;

    let ((), calls) = lab.tracer.count(|| {
        drop((closed, other));
        let slept = sleep.sleep();
        t.done(format!("the system is {what}"), slept);
        unused(lab, flr)
    })?;
    let once = Counts::flr(used.len());
    lab.resets(t, &calls, &format!("while {what}"), once);
    let in_background = calls.in_background().counts();
    let when = format!("resets of closed functions in the background while {what}");
    t.eq(when, once, in_background);

    let when = format!("content of an open function after it was {what}");
    t.eq(when, Content::LEFT, open.content()?);
    lab.state(t, &held, &format!("after it was {what}"), "open")?;
    let when = format!("at open of an idle function that was {what}");
    let next = User::new()?;
    let found = lab.counted(t, &when, sleep.at_open, || Registers::open(&next, idle))?;
    t.eq(format!("content {when}"), Content::ZERO, found.content()?);
    drop((found, next));
    for function in used {
        let when = format!("content of {function}, which was {what} after its close");
        t.eq(when, Content::ZERO, find(function)?);
    }
    drop((open, user));
    binding.release()
}

/// Work that waits for a device lock has half a second. That time stands still while it is frozen.
fn frozen(lab: &Lab, t: &mut Test<'_>, function: &Device) -> Result<()> {
    let functions = slice::from_ref(function);
    let binding = lab.bind(functions)?;
    let mut resets = Counts::NONE;
    for _ in 0..ATTEMPTS {
        settled(lab, functions)?;
        let opened = User::new()?.open(function)?;
        let lock = Marked::locked(function)?;
        let ((), calls) = lab.tracer.count(|| {
            drop(opened);
            FROZEN.sleep()?;
            drop(lock);
            unused(lab, functions)
        })?;
        resets = calls.in_background().counts();
        if resets != Counts::NONE {
            break;
        }
        // The work gave up before it was frozen.
        drop(User::new()?.open(function)?);
    }
    let when = "resets of a function whose cleaning was frozen";
    t.eq(when, Counts::flr(1), resets);
    let when = "at open of a function whose cleaning was frozen";
    drop(lab.counted(t, when, FROZEN.at_open, || User::new()?.open(function))?);
    binding.release()
}

/// Returns the device with the root, if that is a virtiofs.
fn root() -> Result<Option<Bdf>> {
    let Ok(devices) = fs::read_dir("/sys/bus/virtio/drivers/virtiofs") else {
        return Ok(None);
    };
    for device in devices {
        let device = device?;
        if device.file_name().to_string_lossy().starts_with("virtio") {
            let path = fs::canonicalize(device.path())?;
            let parent = path.parent().and_then(Path::file_name);
            let parent = parent.context("a virtio device has a parent")?;
            return Bdf::parse(&parent.to_string_lossy()).map(Some);
        }
    }
    Ok(None)
}

/// A swap area, to which the system hibernates and from which it wakes at once.
struct Swap(());

impl Swap {
    fn new() -> Result<Self> {
        driver::modprobe("brd", &["rd_nr=1", SWAP_SIZE])?;
        driver::run(Command::new("mkswap").arg(SWAP))?;
        driver::run(Command::new("swapon").arg(SWAP))?;
        write_attribute(Path::new(HIBERNATION), "test_resume")?;
        Ok(Swap(()))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let off = driver::run(Command::new("swapoff").arg(SWAP));
        if let Err(e) = off.and_then(|_| driver::rmmod("brd")) {
            eprintln!("{SWAP} is left: {e:#}");
        }
    }
}
