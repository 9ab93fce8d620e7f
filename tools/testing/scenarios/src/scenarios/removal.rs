// SPDX-License-Identifier: GPL-2.0

//! Functions that are pulled out of their slot, in every state, and plugged in again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use lab::helper::DeviceLock;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::Test;
use lab::sysfs::{self, Bdf};
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use serde_json::json;

use crate::qemu::Qmp;
use crate::registers::{find, Content, Registers};

/// A slot that is empty is found to be so within this time, and its functions go.
const SOON: Duration = Duration::from_secs(10);

type Case = fn(&Slot<'_>) -> Result<()>;

/// What a user does to a function of the slot before and while it is pulled out.
const CASES: &[(&str, Case)] = &[
    ("idle", idle),
    ("open, the first one closed first", |slot| open(slot, false)),
    ("open, the last one closed first", |slot| open(slot, true)),
    ("dirty, beside an open one", dirty),
    ("dirty, when a reset is due again", retried),
    ("opened and closed all the time", busy),
    ("being reset", being_reset),
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
    for (what, case) in CASES {
        slot.bind()?;
        let mut mark = Mark::here()?;
        let (time, calls) = lab.tracer.count(|| {
            let start = Instant::now();
            case(&slot)?;
            slot.wait(false)?;
            Ok(start.elapsed())
        })?;
        t.note(format!("{what}: {} ms, {calls}", time.as_millis()));
        let lines = mark.lines()?;
        let retried = lines.iter().filter(|line| line.contains("next attempt"));
        t.note(format!("{what}: {} attempts announced", retried.count()));
        for function in &slot.functions {
            let domain = lab.domain_of(function)?;
            t.check(format!("no domain: {what}"), domain.is_none(), || {
                format!("{domain:#?}")
            });
        }
        slot.refill(&mut machine)?;
        slot.bind()?;
        for function in &slot.functions {
            let content = find(function)?;
            t.eq(format!("content after {what}"), Content::Zero, content);
            function.release()?;
        }
    }
    lab.unreferenced(t)
}

impl Slot<'_> {
    fn bind(&self) -> Result<()> {
        let driver = self.lab.driver.name();
        self.functions.iter().try_for_each(|f| f.bind(driver))
    }

    /// Pulls the functions out: a slot without power loses its device in QEMU, and the kernel has
    /// not been asked.
    fn pull(&self) -> Result<()> {
        const EXPRESS: u8 = 0x10;
        const SLOT_CONTROL: u64 = 0x18;
        // The power controller and the power indicator are off.
        const POWER: u16 = 0x0700;

        let path = self.port.path().join("config");
        let config = OpenOptions::new().read(true).write(true).open(path)?;
        let place = sysfs::capability(&fs::read(self.port.path().join("config"))?, EXPRESS);
        let at = u64::from(place.context("the port is not PCI Express")?) + SLOT_CONTROL;
        let mut control = [0; 2];
        config.read_exact_at(&mut control, at)?;
        let control = u16::from_le_bytes(control) | POWER;
        Ok(config.write_all_at(&control.to_le_bytes(), at)?)
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
    let mut opened = Vec::new();
    for function in &slot.functions {
        let registers = Registers::open(&user, function)?;
        registers.write()?;
        opened.push(registers);
    }
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
    let [a, b] = slot.functions.each_ref().map(|f| Registers::open(&user, f));
    let (a, b) = (a?, b?);
    a.write()?;
    drop(a);
    slot.pull()?;
    thread::sleep(wait::STAY);
    drop(b);
    Ok(())
}

fn retried(slot: &Slot<'_>) -> Result<()> {
    let registers = Registers::open(&User::new()?, &slot.functions[0])?;
    registers.write()?;
    let lock = DeviceLock::hold(&slot.functions[1])?;
    drop(registers);
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
    let registers = Registers::open(&User::new()?, &slot.functions[0])?;
    thread::scope(|scope| {
        scope.spawn(|| drop(registers));
        // The reset of a slot takes a second.
        thread::sleep(wait::STAY / 2);
        slot.pull()
    })
}
