// SPDX-License-Identifier: GPL-2.0

//! Functions that are pulled out of their slot, in every state, and plugged in again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::sysfs::{self, Bdf};
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use serde_json::json;

use crate::qemu::Qmp;

/// A slot that is empty is found to be so within this time, and its functions go.
const SOON: Duration = Duration::from_secs(10);

type Case = fn(&Slot<'_>) -> Result<()>;

/// What a user does to the functions before and while they are pulled out, and whether the slot
/// may be reset in the course of that.
const CASES: &[(&str, Case, bool)] = &[
    ("idle", idle, false),
    (
        "open, the first one closed first",
        |slot| open(slot, false),
        false,
    ),
    (
        "open, the last one closed first",
        |slot| open(slot, true),
        false,
    ),
    ("dirty, beside an open one", dirty, false),
    ("dirty, when a reset is due again", retried, true),
    ("opened and closed all the time", busy, true),
    ("being reset", being_reset, true),
];

struct Slot<'a> {
    lab: &'a Lab,
    port: Device,
    functions: [Device; 2],
}

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let slot = Slot {
        lab,
        port: lab.topology.device("slot.port")?,
        functions: [
            lab.topology.device("slot.a")?,
            lab.topology.device("slot.b")?,
        ],
    };
    let mut machine = Qmp::of_this_machine()?;
    lab.driver.load(&[])?;
    slot.bind()?;
    for (what, case, resets) in CASES {
        let mut mark = Mark::here()?;
        let (time, calls) = lab.tracer.count(|| {
            let start = Instant::now();
            case(&slot)?;
            slot.wait(false)?;
            Ok(start.elapsed())
        })?;
        t.note(format!("{what}: gone after {} ms", time.as_millis()));
        if !resets {
            lab.resets(t, &calls, &format!("of the slot: {what}"), Counts::NONE);
            let lines = mark.lines_with(&["next attempt"])?;
            t.eq(format!("attempts to come: {what}"), 0, lines.len());
        }
        for function in &slot.functions {
            let domain = lab.domain_of(function)?;
            t.check(format!("no domain: {what}"), domain.is_none(), || {
                format!("{domain:#?}")
            });
        }
        slot.refill(&mut machine)?;
        slot.bind()?;
        for function in &slot.functions {
            drop(User::new()?.open(function)?);
            lab.wait_idle(function)?;
            lab.state(t, function, &format!("in the slot again: {what}"), "idle")?;
        }
    }
    for function in &slot.functions {
        function.release()?;
    }
    lab.unreferenced(t)
}

impl Slot<'_> {
    /// Binds the functions. One that has just come cannot be bound yet.
    fn bind(&self) -> Result<()> {
        let driver = self.lab.driver.name();
        let bind = |function: &Device| {
            wait::until(SOON, || function.bind(driver), Result::is_ok)?;
            self.lab.wait_idle(function)
        };
        self.functions.iter().try_for_each(bind)
    }

    /// Pulls the functions out: a slot without power loses its device in QEMU, and the kernel has
    /// not been asked.
    fn pull(&self) -> Result<()> {
        const EXPRESS: u8 = 0x10;
        const SLOT_CONTROL: u64 = 0x18;
        // The power controller and the power indicator are off.
        const POWER: u16 = 0x0700;
        const INTERRUPT: u16 = 0x0020;

        let path = self.port.path().join("config");
        let config = OpenOptions::new().read(true).write(true).open(path)?;
        let place = sysfs::capability(&fs::read(self.port.path().join("config"))?, EXPRESS);
        let at = u64::from(place.context("the port is not PCI Express")?) + SLOT_CONTROL;
        let mut control = [0; 2];
        config.read_exact_at(&mut control, at)?;
        let control = u16::from_le_bytes(control);
        // The kernel learns of it when the power is on again: it takes a slot without power for one
        // that it has emptied itself.
        for control in [control & !INTERRUPT | POWER, control] {
            config.write_all_at(&control.to_le_bytes(), at)?;
        }
        Ok(())
    }

    /// Waits until the functions are there, or gone.
    fn wait(&self, there: bool) -> Result<()> {
        for function in &self.functions {
            let exists = || function.path().exists();
            let reached = wait::until(SOON, exists, |exists| *exists == there) == there;
            ensure!(reached, "{function} is there: {}, not {there}", !there);
        }
        Ok(())
    }

    /// Plugs the functions in again. The slot finds them when function 0 comes.
    fn refill(&self, machine: &mut Qmp) -> Result<()> {
        // The kernel waits a second after it has switched the slot off. To what comes in the
        // meantime, it would take QEMU's press of the slot's button for the wish to unplug it.
        thread::sleep(2 * wait::STAY);
        for function in self.functions.iter().rev() {
            let [.., number] = function.numbers();
            machine.execute(
                "device_add",
                json!({
                    "driver": "virtio-rng-pci", "id": format!("dev.{}", function.role()),
                    "bus": format!("dev.{}", self.port.role()), "addr": format!("0.{number}"),
                    "multifunction": true, "disable-legacy": "on", "x-pcie-flr-init": false,
                    "x-pcie-pm-no-soft-reset": true,
                }),
            )?;
        }
        self.wait(true)
    }
}

fn idle(slot: &Slot<'_>) -> Result<()> {
    slot.pull()
}

fn open(slot: &Slot<'_>, reversed: bool) -> Result<()> {
    let user = User::new()?;
    let opened = slot.functions.iter().map(|function| user.open(function));
    let mut opened = opened.collect::<Result<Vec<_>>>()?;
    slot.pull()?;
    thread::sleep(wait::STAY);
    if reversed {
        opened.reverse();
    }
    opened.into_iter().for_each(drop);
    Ok(())
}

fn dirty(slot: &Slot<'_>) -> Result<()> {
    let user = User::new()?;
    let [a, b] = slot
        .functions
        .each_ref()
        .map(|function| user.open(function));
    let (a, b) = (a?, b?);
    drop(a);
    slot.pull()?;
    thread::sleep(wait::STAY);
    drop(b);
    Ok(())
}

fn retried(slot: &Slot<'_>) -> Result<()> {
    let opened = User::new()?.open(&slot.functions[0])?;
    let lock = Marked::locked(&slot.functions[1])?;
    drop(opened);
    slot.pull()?;
    thread::sleep(wait::STAY);
    drop(lock);
    Ok(())
}

/// Opens and closes a function until it is gone.
fn use_until(function: &Bdf, gone: &AtomicBool) -> Result<()> {
    while !gone.load(Ordering::Relaxed) {
        if let Ok(opened) = User::new()?.open(function) {
            drop(opened);
        }
    }
    Ok(())
}

fn busy(slot: &Slot<'_>) -> Result<()> {
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let user = scope.spawn(|| use_until(&slot.functions[1], &gone));
        thread::sleep(wait::STAY);
        let pulled = slot.pull().and_then(|()| slot.wait(false));
        gone.store(true, Ordering::Relaxed);
        let used = user.join();
        pulled?;
        used.map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })
}

fn being_reset(slot: &Slot<'_>) -> Result<()> {
    let opened = User::new()?.open(&slot.functions[0])?;
    thread::scope(|scope| {
        scope.spawn(|| drop(opened));
        // The reset of a slot takes a second.
        thread::sleep(wait::STAY / 2);
        slot.pull()
    })
}
