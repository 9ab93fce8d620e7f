// SPDX-License-Identifier: GPL-2.0

//! Functions that are pulled out of their slot, in every state, or unplugged by its button, and
//! plugged in again.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::sysfs;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use serde_json::json;

use crate::qemu::Qmp;
use crate::together::meanwhile;

/// A slot that is empty is found to be so within this time, and its functions go.
const SOON: Duration = Duration::from_secs(15);

const SLOTS: usize = 8;

/// The kernel empties a slot this long after the slot's button was pressed.
const BUTTON: Duration = Duration::from_secs(5);

type Case = fn(&Slots<'_>) -> Result<()>;

/// What a user does to the functions before and while they go, and whether a slot may be reset in
/// the course of that.
const CASES: &[(&str, Case, bool)] = &[
    ("idle", idle, false),
    ("open, the first one closed first", |slots| open(slots, false), false),
    ("open, the last one closed first", |slots| open(slots, true), false),
    ("opened and closed all the time", |slots| busy(slots, pull), true),
    ("unplugged by the button, open", unplugged, true),
];

/// The same for two functions of one slot.
const OF_ONE_SLOT: &[(&str, Case, bool)] = &[
    ("dirty, beside an open one", dirty, false),
    ("dirty, when a reset is due again", retried, true),
    ("being reset", being_reset, true),
    ("unplugged by the button, opened and closed all the time", |slots| busy(slots, press), true),
];

struct Slots<'a> {
    lab: &'a Lab,
    machine: RefCell<Qmp>,
    /// Each function with the port above it.
    functions: Vec<(Device, Device)>,
}

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let [port, a, b] = lab.topology.devices(["slot.port", "slot.a", "slot.b"])?;
    let mut slots = Slots {
        lab,
        machine: RefCell::new(Qmp::of_this_machine()?),
        functions: vec![(port.clone(), a), (port, b)],
    };
    lab.driver.load(&[])?;
    slots.all(t, "a slot", CASES)?;
    slots.all(t, "a slot", OF_ONE_SLOT)?;
    let ports = lab.topology.family("slots.port", SLOTS)?;
    slots.functions = ports.into_iter().zip(lab.topology.family("slots", SLOTS)?).collect();
    slots.all(t, "eight slots", CASES)?;
    lab.unreferenced(t)
}

impl Slots<'_> {
    /// Runs cases on functions that are bound before and unbound after it.
    fn all(&self, t: &mut Test<'_>, place: &str, cases: &[(&str, Case, bool)]) -> Result<()> {
        let lab = self.lab;
        self.bind()?;
        for (what, case, resets) in cases {
            let what = format!("{place}, {what}");
            let mut mark = Mark::here()?;
            let (time, calls) = lab.tracer.count(|| {
                let start = Instant::now();
                case(self)?;
                self.wait(false)?;
                Ok(start.elapsed())
            })?;
            t.note(format!("{what}: gone after {} ms", time.as_millis()));
            if !resets {
                let calls = calls.not_at_open();
                lab.resets(t, &calls, &format!("of a slot: {what}"), Counts::NONE);
                let lines = mark.lines_with(&["next attempt"])?;
                t.eq(format!("attempts to come: {what}"), 0, lines.len());
            }
            let left = lab.domains()?;
            t.check(format!("no domain: {what}"), left.is_empty(), || format!("{left:#?}"));
            self.refill()?;
            self.bind()?;
            for function in self.functions() {
                drop(User::new()?.open(function)?);
                lab.wait_idle(function)?;
                lab.state(t, function, &format!("in the slot again: {what}"), "idle")?;
            }
        }
        self.functions().try_for_each(|function| function.release())
    }

    fn functions(&self) -> impl Iterator<Item = &Device> {
        self.functions.iter().map(|(_, function)| function)
    }

    fn function(&self, number: usize) -> &Device {
        &self.functions[number].1
    }

    fn ports(&self) -> Vec<&Device> {
        let mut ports: Vec<_> = self.functions.iter().map(|(port, _)| port).collect();
        ports.dedup();
        ports
    }

    /// Binds the functions. One that has just come cannot be bound yet.
    fn bind(&self) -> Result<()> {
        let driver = self.lab.driver.name();
        self.functions().try_for_each(|function| {
            wait::until(SOON, || function.bind(driver), Result::is_ok)?;
            self.lab.wait_idle(function)
        })
    }

    /// Waits until the functions are there, or gone.
    fn wait(&self, there: bool) -> Result<()> {
        for function in self.functions() {
            let exists = || function.path().exists();
            let reached = wait::until(SOON, exists, |exists| *exists == there) == there;
            ensure!(reached, "{function} is there: {}, not {there}", !there);
        }
        Ok(())
    }

    /// Plugs the functions in again. The slot finds them when function 0 comes.
    fn refill(&self) -> Result<()> {
        for function in self.functions() {
            let path = json!({ "path": format!("/machine/peripheral/dev.{}", function.role()) });
            let find = || self.machine.borrow_mut().execute("qom-list", path.clone());
            let found = wait::until(SOON, find, Result::is_err);
            ensure!(found.is_err(), "{function} is in a slot that is not switched off");
        }
        // The kernel waits a second after it has switched the slot off. To what comes in the
        // meantime, it would take QEMU's press of the slot's button for the wish to unplug it.
        thread::sleep(2 * wait::STAY);
        for (port, function) in self.functions.iter().rev() {
            let [.., number] = function.numbers();
            self.machine.borrow_mut().execute(
                "device_add",
                json!({
                    "driver": "virtio-rng-pci", "id": format!("dev.{}", function.role()),
                    "bus": format!("dev.{}", port.role()), "addr": format!("0.{number}"),
                    "multifunction": true, "disable-legacy": "on", "x-pcie-flr-init": false,
                    "x-pcie-pm-no-soft-reset": true,
                }),
            )?;
        }
        self.wait(true)
    }
}

/// Pulls the functions out of the slots, without asking the kernel. In QEMU, a slot without power
/// loses its device.
fn pull(slots: &Slots<'_>) -> Result<()> {
    const EXPRESS: u8 = 0x10;
    const SLOT_CONTROL: u64 = 0x18;
    // The power controller and the power indicator are off.
    const POWER: u16 = 0x0700;
    const INTERRUPT: u16 = 0x0020;

    for port in slots.ports() {
        let place = sysfs::capability(&port.config()?, EXPRESS);
        let at = u64::from(place.context("the port is not PCI Express")?) + SLOT_CONTROL;
        let before = port.change_config(at, |control| control & !INTERRUPT | POWER)?;
        // The kernel learns of it when the power is on again: it takes a slot without power for one
        // that it has emptied itself.
        port.change_config(at, |_| before)?;
    }
    Ok(())
}

/// Presses the buttons of the slots, as QEMU does to empty them.
fn press(slots: &Slots<'_>) -> Result<()> {
    for (_, function) in &slots.functions {
        if function.numbers()[3] == 0 {
            let id = json!({ "id": format!("dev.{}", function.role()) });
            slots.machine.borrow_mut().execute("device_del", id)?;
        }
    }
    Ok(())
}

fn idle(slots: &Slots<'_>) -> Result<()> {
    pull(slots)
}

fn open(slots: &Slots<'_>, reversed: bool) -> Result<()> {
    let user = User::new()?;
    let opened = slots.functions().map(|function| user.open(function));
    let mut opened = opened.collect::<Result<Vec<_>>>()?;
    pull(slots)?;
    thread::sleep(wait::STAY);
    if reversed {
        opened.reverse();
    }
    opened.into_iter().for_each(drop);
    Ok(())
}

fn dirty(slots: &Slots<'_>) -> Result<()> {
    let user = User::new()?;
    let (a, b) = (user.open(slots.function(0))?, user.open(slots.function(1))?);
    drop(a);
    pull(slots)?;
    thread::sleep(wait::STAY);
    drop(b);
    Ok(())
}

fn retried(slots: &Slots<'_>) -> Result<()> {
    let opened = User::new()?.open(slots.function(0))?;
    let lock = Marked::locked(slots.function(1))?;
    drop(opened);
    pull(slots)?;
    thread::sleep(wait::STAY);
    drop(lock);
    Ok(())
}

fn being_reset(slots: &Slots<'_>) -> Result<()> {
    let opened = User::new()?.open(slots.function(0))?;
    thread::scope(|scope| {
        scope.spawn(|| drop(opened));
        // The reset of a slot takes a second.
        thread::sleep(wait::STAY / 2);
        pull(slots)
    })
}

fn unplugged(slots: &Slots<'_>) -> Result<()> {
    let user = User::new()?;
    let opened = slots.functions().map(|function| user.open(function));
    let opened = opened.collect::<Result<Vec<_>>>()?;
    press(slots)?;
    thread::sleep(BUTTON + wait::STAY);
    opened.into_iter().for_each(drop);
    Ok(())
}

/// The last function is opened and closed until `take` has made it go.
fn busy(slots: &Slots<'_>, take: fn(&Slots<'_>) -> Result<()>) -> Result<()> {
    let function = slots.functions().last().context("there is none")?;
    let open = || {
        let user = User::new()?;
        // It may be gone.
        drop(user.open(function));
        Ok(())
    };
    meanwhile(&[&open], || {
        thread::sleep(wait::STAY);
        take(slots).and_then(|()| slots.wait(false))
    })
    .map(drop)
}
