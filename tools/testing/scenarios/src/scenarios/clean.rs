// SPDX-License-Identifier: GPL-2.0

//! A function that is proven clean is opened without a reset, and reset in the background after it
//! was closed. Whatever may have touched it in between leads to a reset at open.

use std::fs;
use std::process::Command;
use std::slice;
use std::thread;

use anyhow::{bail, ensure, Context, Result};
use lab::driver;
use lab::helper::Marked;
use lab::machine::{Lab, PF};
use lab::registers::Kind;
use lab::report::Test;
use lab::resets::Counts;
use lab::sriov::VirtualFunctions;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use raw::Mapping;

use super::attributes::{comes_to, read};
use super::{errno, errors, with_module};
use crate::bench::measure::wait_asleep;
use crate::registers::{bars, command, reset_below, Content, Registers, COMMAND_MEMORY};
use crate::together::result;

/// Where a container maps a BAR.
const IOVA: u64 = 0x10_0000;
const NONE: Counts = Counts::NONE;
const VFS: usize = 7;

/// How often an open may miss a reset: the slower it is, the later the reset has to begin.
const ATTEMPTS: u32 = 10;

/// The resets of some functions that are opened and closed.
#[derive(Debug, Clone, Copy)]
struct Resets {
    at_open: usize,
    at_close: usize,
    in_background: usize,
}

impl Resets {
    fn of(functions: usize, skip: bool, background: bool) -> Self {
        Resets {
            at_open: if skip { 0 } else { functions },
            at_close: if background { 0 } else { functions },
            in_background: if background { functions } else { 0 },
        }
    }
}

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load_as_is(&[])?;
    // Those with ATS may be reset at close.
    let flr = lab.topology.family("flr", 6)?;
    let functions = [&flr[..6], &lab.topology.family("pair", 2)?].concat();
    of(lab, t, "functions of two buses", &functions, &User::new()?)?;

    let pf = lab.topology.device(PF)?;
    let enabled = VirtualFunctions::enable(&pf, VFS)?;
    let vfs = enabled.devices();
    match User::with_iommufd() {
        Ok(user) => of(lab, t, "VFs of an iommufd", &vfs, &user)?,
        Err(e) => t.skip("VFs of an iommufd", format!("{e:#}")),
    }
    of(lab, t, "VFs of groups", &vfs, &User::new()?)?;
    let binding = lab.bind(&vfs)?;
    let container = User::new()?;
    mapped(lab, t, "VF", &vfs[..2], container.clone(), container)?;
    if let Ok(owner) = User::with_iommufd() {
        mapped(lab, t, "VF of an iommufd", &vfs[..2], owner, User::new()?)?;
    }
    kernels_type1(lab, t, &vfs)?;
    binding.release()?;
    drop(enabled);
    let binding = lab.bind(&flr[..2])?;
    let container = User::new()?;
    mapped(lab, t, "function with D3hot", &flr[..2], container.clone(), container)?;
    binding.release()?;

    lab.driver.load_as_is(&["background_reset=0"])?;
    let function = &functions[..1];
    let binding = lab.counted(t, "at bind, none in the background", NONE, || lab.bind(function))?;
    let first = Resets::of(1, false, false);
    cycle(lab, t, "bound without a reset", function, first)?;
    cycle(lab, t, "closed with one", function, Resets::of(1, true, false))?;
    binding.release()?;

    lab.driver.load_as_is(&["disable_idle_d3=1"])?;
    let binding = lab.bind(function)?;
    unused(lab, function)?;
    let awake = Resets::of(1, false, true);
    cycle(lab, t, "awake while unused", function, awake)?;
    binding.release()
}

/// A container that maps a BAR of a function can reach it after it was closed and reset, until that
/// is in D3hot, which VFs have not. It is clean after another reset, once no container does.
fn mapped(
    lab: &Lab,
    t: &mut Test<'_>,
    kind: &str,
    functions: &[Device],
    owner: User,
    container: User,
) -> Result<()> {
    let [function, beside] = functions else { bail!("two functions are needed") };
    settled(lab, functions)?;
    let shares_group = function.iommu_group()? == beside.iommu_group()?;
    // It keeps the container.
    let beside = container.open(beside)?;
    let device = owner.device(function)?;
    command(&device, COMMAND_MEMORY);
    container.map(&Mapping::region(&device, Kind::of(function)?.bar)?, IOVA)?;
    drop(device);
    for (when, is_rebound) in
        [("a container maps it", false), ("it was used again", false), ("it was rebound", true)]
    {
        let mut user = owner.clone();
        if is_rebound {
            function.bind(lab.driver.name())?;
            if !shares_group {
                user = User::new()?;
            }
        }
        unused(lab, slice::from_ref(function))?;
        thread::sleep(wait::STAY);
        t.eq(format!("state of a {kind}: {when}"), "unknown", read(function, "state")?.as_str());
        let when = format!("a {kind}, {when}");
        let resets = Counts::flr(1);
        drop(lab.counted(t, &format!("at open: {when}"), resets, || user.open(function))?);
    }
    unused(lab, slice::from_ref(function))?;
    let ((), calls) = lab.tracer.count(|| {
        drop((beside, container, owner));
        settled(lab, functions)
    })?;
    let what = format!("resets in the background: a {kind} that was mapped, and another one");
    t.eq(what, Counts::flr(2), calls.in_background().counts());
    cycle(lab, t, &format!("a {kind} that was mapped"), functions, Resets::of(2, true, true))
}

/// The kernel's own type1 cannot tell, so a VF that was opened by its group is reset at open.
fn kernels_type1(lab: &Lab, t: &mut Test<'_>, vfs: &[Device]) -> Result<()> {
    const TYPE1: &str = "vfio_iommu_type1";
    let [name] = &driver::modinfo(TYPE1, "filename")?[..] else { bail!("no {TYPE1}") };
    let Some((modules, _)) = name.split_once("/updates/") else {
        t.skip("the kernel's own type1", "there is no other one");
        return Ok(());
    };
    let own = fs::read_dir(format!("{modules}/kernel/drivers/vfio"))?;
    let mut own = own.filter_map(|file| Some(file.ok()?.path()));
    let own = own.find(|path| path.to_string_lossy().contains(TYPE1));
    settled(lab, vfs)?;
    driver::rmmod(TYPE1)?;
    driver::run(Command::new("insmod").arg(own.context("the kernel has no type1")?))?;
    cycle(lab, t, "the kernel's own type1, bound", vfs, Resets::of(VFS, true, true))?;
    cycle(lab, t, "the kernel's own type1, used", vfs, Resets::of(VFS, false, true))?;
    driver::rmmod(TYPE1)?;
    driver::modprobe(TYPE1, &[])
}

/// Binds, opens and closes functions, each by one thread.
fn of(lab: &Lab, t: &mut Test<'_>, what: &str, functions: &[Device], user: &User) -> Result<()> {
    let count = functions.len();
    let (binding, calls) = lab.tracer.count(|| {
        let binding = lab.bind(functions)?;
        settled(lab, functions)?;
        Ok(binding)
    })?;
    lab.resets(t, &calls, &format!("at bind of {what}"), Counts::flr(count));
    let in_background = calls.in_background().counts();
    let at_bind = format!("resets in the background at bind of {what}");
    t.eq(at_bind, Counts::flr(count), in_background);

    let first = Resets::of(count, true, true);
    cycle_of(lab, t, what, functions, user, first)?;
    binding.release()
}

/// Opens functions by their groups and closes them.
fn cycle(
    lab: &Lab,
    t: &mut Test<'_>,
    when: &str,
    functions: &[Device],
    expected: Resets,
) -> Result<()> {
    cycle_of(lab, t, when, functions, &User::new()?, expected)
}

/// Opens and closes functions, one after the other, and waits until they are unused.
fn cycle_of(
    lab: &Lab,
    t: &mut Test<'_>,
    when: &str,
    functions: &[Device],
    user: &User,
    expected: Resets,
) -> Result<()> {
    let at_open = Counts::flr(expected.at_open);
    let opened =
        lab.counted(t, &format!("at open: {when}"), at_open, || user.open_all(functions))?;
    let ((), calls) = lab.tracer.count(|| {
        drop(opened);
        unused(lab, functions)
    })?;
    let Resets { at_close, in_background, .. } = expected;
    let all = Counts::flr(at_close + in_background);
    lab.resets(t, &calls, &format!("after close: {when}"), all);
    for (place, expected, got) in [
        ("in close", at_close, calls.at_release()),
        ("in the background", in_background, calls.in_background()),
    ] {
        let what = format!("resets {place}: {when}");
        t.eq(what, Counts::flr(expected), got.counts());
    }
    Ok(())
}

/// Waits until the functions are clean, and asleep, if they may sleep.
pub(super) fn settled(lab: &Lab, functions: &[Device]) -> Result<()> {
    for function in functions {
        let state = comes_to(function, "clean")?;
        ensure!(state == "clean", "{function} comes to be {state}");
    }
    unused(lab, functions)
}

/// Waits until the functions are idle, and asleep, if they may sleep.
pub(super) fn unused(lab: &Lab, functions: &[Device]) -> Result<()> {
    functions.iter().try_for_each(|f| lab.wait_idle(f))?;
    let awake = driver::parameter_path(&lab.driver.module(), "disable_idle_d3");
    match fs::read_to_string(awake)?.trim_end() {
        "Y" => Ok(()),
        _ => functions.iter().try_for_each(wait_asleep),
    }
}

/// Something that may have touched a clean function that was not used.
struct Trick<'a> {
    lab: &'a Lab,
    function: &'a Device,
}

pub(super) fn tricks(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load_as_is(&["enable_sriov=1"])?;
    let flr = lab.topology.device("flr.0")?;
    let pf = lab.topology.device(PF)?;
    let port = lab.topology.device("igb.port")?;
    let binding = lab.bind([&flr, &pf])?;
    let trick = Trick { lab, function: &flr };
    trick.finds(t, "nothing", 0, |_| Ok(()))?;
    trick.finds(t, "woken by power/control and asleep again", 1, |flr| {
        flr.write("power/control", "on")?;
        thread::sleep(wait::STAY);
        flr.write("power/control", "auto")?;
        wait_asleep(flr)
    })?;
    // It must sleep after its close to be proven clean again.
    settled(lab, slice::from_ref(&flr))?;
    flr.write("power/control", "on")?;
    let user = User::new()?;
    let when = "at open: kept awake by power/control";
    let opened = lab.counted(t, when, Counts::flr(1), || user.open(&flr))?;
    flr.write("power/control", "auto")?;
    drop((opened, user));
    trick.finds(t, "reset by sysfs", 1, |flr| {
        flr.write("reset", "1")?;
        wait_asleep(flr)
    })?;
    trick.finds(t, "not reset by sysfs", 1, |flr| {
        let unplugged = Marked::unplugged(flr)?;
        let reset = flr.write("reset", "1");
        drop(unplugged);
        ensure!(errno(&reset) == "ENOTTY", "the reset: {reset:?}");
        wait_asleep(flr)
    })?;
    trick.finds(t, "not cleaned in the background", 1, |flr| {
        let opened = User::new()?.open(flr)?;
        let lock = Marked::locked(flr)?;
        drop(opened);
        let state = comes_to(flr, "dirty")?;
        drop(lock);
        ensure!(state == "dirty", "it comes to be {state}");
        Ok(())
    })?;

    let trick = Trick { lab, function: &pf };
    trick.finds(t, "VFs in between", 1, |pf| {
        pf.write("sriov_numvfs", "1")?;
        pf.write("sriov_numvfs", "0")?;
        wait_asleep(pf)
    })?;
    injected(t, &trick)?;
    // No part of the kernel learns of this one; it restores the function when it wakes it.
    trick.works(t, "a raw reset of the bus while it sleeps", |_| reset_below(&port))?;
    trick.finds(t, "not opened during a reset by sysfs", 1, |pf| {
        for attempt in 0..ATTEMPTS {
            let user = User::new()?;
            let opened = thread::scope(|scope| {
                let reset = scope.spawn(|| {
                    thread::sleep(wait::RESET / 2 * attempt);
                    port.write("reset_subordinate", "1")
                });
                thread::sleep(wait::RESET / 2);
                let opened = user.open(pf).map(drop);
                result(reset.join()).map(|()| opened)
            })?;
            if opened.is_err() {
                ensure!(errno(&opened) == "EAGAIN", "the open: {opened:?}");
                return wait_asleep(pf);
            }
            settled(lab, slice::from_ref(pf))?;
        }
        bail!("no open met a reset")
    })?;
    binding.release()?;

    let binding = lab.bind([&flr])?;
    settled(lab, slice::from_ref(&flr))?;
    flr.bind(lab.driver.name())?;
    let trick = Trick { lab, function: &flr };
    trick.finds(t, "unbound, bound and cleaned", 0, |_| Ok(()))?;
    binding.release()?;

    lab.driver.load_as_is(&["disable_idle_d3=1"])?;
    let binding = lab.bind([&pf])?;
    let trick = Trick { lab, function: &pf };
    trick.works(t, "a raw reset of the bus while it is awake", |_| reset_below(&port))?;
    binding.release()
}

impl Trick<'_> {
    /// Checks how often a function is reset at open after `work`, which finds it clean.
    fn finds(
        &self,
        t: &mut Test<'_>,
        what: &str,
        at_open: usize,
        work: impl FnOnce(&Device) -> Result<()>,
    ) -> Result<()> {
        let functions = slice::from_ref(self.function);
        settled(self.lab, functions)?;
        work(self.function)?;
        let when = format!("{what} ({})", self.function.role());
        let resets = Resets { at_open, ..Resets::of(1, false, true) };
        cycle(self.lab, t, &when, functions, resets)
    }

    /// Checks that a function works and is clean after `work`.
    fn works(
        &self,
        t: &mut Test<'_>,
        what: &str,
        work: impl FnOnce(&Device) -> Result<()>,
    ) -> Result<()> {
        unused(self.lab, slice::from_ref(self.function))?;
        let before = bars(self.function)?;
        work(self.function)?;
        let (registers, calls) =
            self.lab.tracer.count(|| Registers::open(&User::new()?, self.function))?;
        t.note(format!("resets at open after {what}: {}", calls.counts()));
        t.eq(format!("content after {what}"), Content::ZERO, registers.content()?);
        let after = bars(self.function)?;
        t.check(format!("BARs after {what}"), before == after, || {
            format!("{before:x?} became {after:x?}")
        });
        Ok(())
    }
}

/// PCI Express reports an error of the function.
fn injected(t: &mut Test<'_>, trick: &Trick<'_>) -> Result<()> {
    with_module(t, "an error while it is unused", errors::INJECTOR, |t| {
        let inject = |function: &Device| errors::inject_nonfatal(function);
        trick.finds(t, "an error", 1, inject)
    })
}
