// SPDX-License-Identifier: GPL-2.0

//! The files of a function in sysfs: its state, its debts, and the wishes of root.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::thread;

use anyhow::{ensure, Context, Error, Result};
use lab::driver;
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF, PF_IN_SLOT, STUB};
use lab::report::Test;
use lab::resets::Counts;
use lab::sysfs::Bdf;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::{errno, one_line};
use crate::bench::measure::wait_asleep;
use crate::registers::leave;

const DIRECTORY: &str = "vfio_reset";
const NONE: Counts = Counts::NONE;
const BUS: Counts = Counts::bus(1);

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    driver::modprobe("pci_stub", &[])?;
    lab.driver.load_as_is(&[])?;
    clean(lab, t, &lab.topology.device("flr.0")?)?;
    owed(lab, t)?;
    refused(lab, t)?;
    not_alone(lab, t)?;
    wanted(lab, t)
}

/// The life of a function that is reset alone.
fn clean(lab: &Lab, t: &mut Test<'_>, flr: &Device) -> Result<()> {
    let binding = lab.bind([flr])?;
    t.is("comes to, once bound", "clean", comes_to(flr, "clean")?);
    let reset_at_bind = read(flr, "last_reset")?;
    let is_alone = reset_at_bind.starts_with("function ");
    t.check("reset at bind", is_alone, || &reset_at_bind);

    let mut state = Watch::new(flr)?;
    let user = User::new()?;
    let opened = user.open(flr)?;
    t.holds("poll() returns at open", state.changed()?);
    t.is("state while open", "in-use", read(flr, "state")?);
    t.is("reset while open", "EBUSY", errno(&write(flr, "reset", "1")));
    drop(opened);
    t.is("comes to, once closed", "clean", comes_to(flr, "clean")?);
    t.holds("poll() returns at close", state.changed()?);
    let opens = |with: &str, without: &str| -> Result<bool> {
        Ok(read(flr, "opens_with_reset")? == with && read(flr, "opens_without_reset")? == without)
    };
    t.holds("counted as open without a reset", opens("0", "1")?);
    let reset_at_close = read(flr, "last_reset")?;
    t.check("reset at close", reset_at_close != reset_at_bind, || &reset_at_close);

    flr.write("power/control", "on")?;
    flr.write("power/control", "auto")?;
    wait_asleep(flr)?;
    t.is("state once woken", "unknown", read(flr, "state")?);
    lab.counted(t, "that root asks for", Counts::flr(1), || {
        write(flr, "reset", "1")?;
        comes_to(flr, "clean")
    })?;
    t.is("state after that", "clean", read(flr, "state")?);

    let opened = user.open(flr)?;
    write(flr, "background_reset", "off")?;
    let power = thread::scope(|scope| {
        let mut state = Watch::new(flr)?;
        scope.spawn(|| drop(opened));
        let timeout = PollTimeout::try_from(wait::SETTLE)?;
        while state.next(timeout)?.context("the state stays")? != "clean" {}
        flr.read("power/runtime_status")
    })?;
    t.is("asleep as soon as it is clean", "suspended", power);
    write(flr, "background_reset", "default")?;

    write(flr, "skip_clean_reset", "off")?;
    lab.counted(t, "at open, not to be skipped", Counts::flr(1), || user.open(flr))?;
    t.holds("counted as open with a reset", opens("1", "2")?);
    for (value, expected) in [("on", "on"), ("0", "off"), ("default", "default")] {
        write(flr, "skip_clean_reset", value)?;
        let got = read(flr, "skip_clean_reset")?;
        t.eq(format!("set to {value}"), expected, &*got);
    }
    for (file, value) in [("strict", "maybe"), ("reset", "0")] {
        let what = format!("'{value}' written to {file}");
        t.is(what, "EINVAL", errno(&write(flr, file, value)));
    }

    binding.release()?;
    let directory = flr.path().join(DIRECTORY);
    t.holds("unbound, without files", !directory.exists());
    Ok(())
}

/// The life of functions that only a reset of their bus cleans, beside strangers.
fn owed(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let [a, b, c] = lab.topology.devices(["bus.a", "bus.b", "bus.c"])?;
    let ours = lab.bind([&a])?;
    c.bind(STUB)?;
    let scope = lab.domain_of(&a)?.context("bus.a has no domain")?;
    let scope = format!("{} {}", scope.kind, scope.name);
    t.is("owed before the first use", "none", read(&a, "owed")?);

    let mut uevents = Uevents::listen()?;
    let mut log = Mark::here()?;
    // The close does not wait for a function of another driver.
    let lock = Marked::locked(&c)?;
    leave(&a)?;
    drop(lock);
    t.is("beside strangers, comes to", "dirty", comes_to(&a, "dirty")?);
    t.is("owed beside strangers", &scope, read(&a, "owed")?);
    let lock = Marked::locked(&b)?;
    let changing = format!("{} is being bound, unbound or reset", *b);
    let obstacles = read(&a, "obstacles")?;
    t.check("a stranger that is locked", obstacles.starts_with(&changing), || obstacles);
    drop(lock);
    let obstacles = format!("{} is not bound to a driver\n{} is bound to {STUB}", *b, *c);
    t.is("strangers", &obstacles, read(&a, "obstacles")?);
    let named = obstacles.replace('\n', ", ");
    let command = format!("driverctl set-override ADDRESS {}", lab.driver.name());
    one_line(t, &mut log, &[&(*a).to_string(), &named, &command])?;
    t.eq("uevents: dirty", 1, uevents.of(&a, "dirty")?);
    t.is("reset beside strangers", "EIO", errno(&write(&a, "reset", "1")));

    write(&a, "strict", "on")?;
    t.is("open of a dirty one, strict", "EIO", errno(&User::new()?.open(&a)));
    write(&a, "strict", "default")?;
    drop(User::new()?.open(&a)?);

    let others = lab.counted(t, "once no stranger is left", BUS, || {
        let others = lab.bind([&b, &c])?;
        comes_to(&a, "clean")?;
        Ok(others)
    })?;
    t.is("owed, no stranger left", "none", read(&a, "owed")?);
    t.is("strangers, none left", "", read(&a, "obstacles")?);
    t.eq("uevents: clean", 1, uevents.of(&a, "clean")?);
    let last = read(&a, "last_reset")?;
    let is_domain = last.starts_with(scope.split(' ').next().unwrap_or_default());
    t.check("reset with its siblings", is_domain, || &last);

    others.release()?;
    ours.release()
}

/// Resets that root asks for in vain: there is none, or a sibling is in use.
fn refused(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let [a, b, c, lone] = lab.topology.devices(["bus.a", "bus.b", "bus.c", "root.b"])?;
    let mixed = lab.topology.device("mixed.a")?;
    let binding = lab.bind([&a, &b, &c, &lone, &mixed])?;
    lab.wait_idle(&lone)?;
    t.is("last reset of one that has none", "none", read(&lone, "last_reset")?);
    t.is("reset of one that has none", "ENOTTY", errno(&write(&lone, "reset", "1")));

    leave(&mixed)?;
    t.is("beside a bridge, comes to", "dirty", comes_to(&mixed, "dirty")?);
    let bridge = format!("{} is a bridge", *lab.topology.device("mixed.bridge")?);
    t.is("obstacles beside a bridge", &bridge, read(&mixed, "obstacles")?);

    let mut log = Mark::here()?;
    let barred = Marked::no_bus_reset(&c)?;
    leave(&a)?;
    t.is("without a bus reset, comes to", "dirty", comes_to(&a, "dirty")?);
    one_line(t, &mut log, &[&(*a).to_string(), "bus reset", "skipped: it has no such reset"])?;
    let none = format!("bus {} has no reset", a.bus());
    t.is("obstacles without a bus reset", &none, read(&b, "obstacles")?);
    drop(barred);

    let opened = User::new()?.open(&b)?;
    let used = format!("{} is in use", *b);
    t.is("obstacles beside an open function", &used, read(&a, "obstacles")?);
    t.is("reset beside an open function", "EBUSY", errno(&write(&a, "reset", "1")));
    lab.counted(t, "once the sibling is closed", BUS, || {
        drop(opened);
        comes_to(&a, "clean")
    })?;
    binding.release()
}

/// Functions whose reset would affect more, which the work therefore does not reset.
fn not_alone(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let [in_slot, pf] = lab.topology.devices([PF_IN_SLOT, PF])?;
    in_slot.write("reset_method", "bus")?;
    let binding = lab.counted(t, "at bind, by the slot only", NONE, || {
        let binding = lab.bind([&in_slot])?;
        lab.wait_idle(&in_slot)?;
        Ok(binding)
    })?;
    binding.release()?;
    in_slot.write("reset_method", "default")?;

    lab.driver.set("enable_sriov", true)?;
    let binding = lab.bind([&pf])?;
    comes_to(&pf, "clean")?;
    pf.write("sriov_drivers_autoprobe", "0")?;
    pf.write("sriov_numvfs", "1")?;
    lab.counted(t, "that root asks for, of a PF that has VFs", NONE, || {
        write(&pf, "reset", "1")?;
        lab.wait_idle(&pf)
    })?;
    pf.write("sriov_numvfs", "0")?;
    pf.write("sriov_drivers_autoprobe", "1")?;
    binding.release()
}

/// Root wants more, or less, than the driver does by itself.
fn wanted(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let flr = lab.topology.family("flr", 8)?;
    let binding = lab.bind(&flr)?;
    let (first, second) = (&flr[0], &flr[1]);
    for function in [first, second] {
        comes_to(function, "clean")?;
    }
    let bus_resets = |function: &Device, state: &str| {
        let ((), calls) = lab.tracer.count(|| {
            drop(User::new()?.open(function)?);
            comes_to(function, state).map(drop)
        })?;
        Ok::<_, Error>(calls.bus_or_slot())
    };
    write(first, "bus_reset", "on")?;
    for (when, expected) in [("before the first use and after it", 2), ("after the second", 1)] {
        let what = format!("bus resets if root wants them, {when}");
        t.eq(what, expected, bus_resets(first, "clean")?);
    }
    t.eq("bus resets of another function", 0, bus_resets(second, "clean")?);

    second.write("reset_method", "\n")?;
    let obstacle = format!("{} must not be reset, as its reset_method is empty", **second);
    t.is("resets that root disabled", &obstacle, read(first, "obstacles")?);
    let disabled = bus_resets(second, "dirty")? + bus_resets(first, "dirty")?;
    t.eq("bus resets that root disabled", 0, disabled);
    t.is("owed if root disabled that", "function", read(second, "owed")?);
    second.write("reset_method", "default")?;
    binding.release()
}

pub(super) fn read(function: &Bdf, file: &str) -> Result<String> {
    function.read(&format!("{DIRECTORY}/{file}"))
}

fn write(function: &Bdf, file: &str, value: &str) -> Result<()> {
    function.write(&format!("{DIRECTORY}/{file}"), value)
}

/// Waits for a state. Returns the last one.
pub(super) fn comes_to(function: &Bdf, state: &str) -> Result<String> {
    function.comes_to(&format!("{DIRECTORY}/state"), state)
}

/// Watches the state of a function, as a program with `poll()`.
struct Watch(File);

impl Watch {
    fn new(function: &Bdf) -> Result<Self> {
        let mut watch = Watch(File::open(function.path().join(DIRECTORY).join("state"))?);
        watch.changed()?;
        Ok(watch)
    }

    /// Returns whether the state has changed since the last call.
    fn changed(&mut self) -> Result<bool> {
        Ok(self.next(PollTimeout::ZERO)?.is_some())
    }

    /// Waits until the state has changed since the last call. Returns it, or `None` after `timeout`.
    fn next(&mut self, timeout: PollTimeout) -> Result<Option<String>> {
        let mut files = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        let found = poll(&mut files, timeout)?;
        // It counts from here on.
        let mut state = String::new();
        std::io::Seek::rewind(&mut self.0)?;
        self.0.read_to_string(&mut state)?;
        Ok((found == 1).then(|| state.trim_end().to_owned()))
    }
}

pub(super) struct Uevents(File);

impl Uevents {
    pub(super) fn listen() -> Result<Self> {
        Ok(Uevents(File::from(raw::uevents()?)))
    }

    /// Returns the number of new uevents that a function has come to this state.
    pub(super) fn of(&mut self, function: &Bdf, state: &str) -> Result<usize> {
        let mut found = 0;
        let mut buffer = [0; 8192];
        while let Ok(length) = self.0.read(&mut buffer) {
            ensure!(length > 0, "the socket is closed");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let has = |part: &str| text.split('\0').any(|line| line == part);
            if has(&format!("PCI_SLOT_NAME={function}")) {
                found += usize::from(has(&format!("VFIO_RESET_STATE={state}")));
            }
        }
        Ok(found)
    }
}
