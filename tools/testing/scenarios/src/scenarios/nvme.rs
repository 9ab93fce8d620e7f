// SPDX-License-Identifier: GPL-2.0

//! `vfio-pci-nvme` shuts a controller down before its reset, unless that must be left alone, and
//! shares the reset domains of the first driver.
//!
//! Root has disabled the resets of a function, so that the next user finds the state after
//! the last close.

use std::ops::Range;
use std::thread;
use std::time::Instant;

use anyhow::{ensure, Result};
use lab::driver::NVME;
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::{Bound, Lab};
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;

use super::{errno, one_line};
use crate::controller::{Controller, Status, ABRUPT, NO_QUEUES, QUEUES};
use crate::registers::Holder;
use crate::together::result;

/// The attribute by which root chooses the resets of a function alone.
const METHODS: &str = "reset_method";

const RUNNING: Status = Status { asked: 0, status: 1 };
const SHUT_DOWN: Status = Status { asked: 1, status: 9 };

/// What a user does with a controller before the close; its function is the second argument.
type Use = fn(&Controller, &Device) -> Result<()>;

/// Uses, and what the next user finds after a close by `vfio-pci-nvme` and by another driver.
const USES: &[(&str, Use, [Status; 2])] = &[
    ("enabled", |nvme, _| nvme.enable(QUEUES), [SHUT_DOWN, RUNNING]),
    ("asleep", asleep, [SHUT_DOWN, RUNNING]),
    ("not enabled", |_, _| Ok(()), [Status { asked: 0, status: 0 }; 2]),
    ("failed", |nvme, _| nvme.enable(NO_QUEUES), [Status { asked: 0, status: 2 }; 2]),
    ("shut down", shut_down, [Status { asked: ABRUPT, status: 9 }; 2]),
    ("without memory", without_memory, [RUNNING; 2]),
    ("in D3hot", in_d3hot, [RUNNING; 2]),
];

fn asleep(nvme: &Controller, function: &Device) -> Result<()> {
    nvme.enable(QUEUES)?;
    nvme.sleep()?;
    let state = function.wait_power_state("D3hot")?;
    ensure!(state == "D3hot", "it does not sleep, but is in {state}");
    Ok(())
}

fn shut_down(nvme: &Controller, _: &Device) -> Result<()> {
    nvme.enable(QUEUES)?;
    nvme.shut_down(ABRUPT);
    Ok(())
}

fn without_memory(nvme: &Controller, _: &Device) -> Result<()> {
    nvme.enable(QUEUES)?;
    nvme.turn_memory_off();
    Ok(())
}

fn in_d3hot(nvme: &Controller, function: &Device) -> Result<()> {
    nvme.enable(QUEUES)?;
    nvme.set_d3hot(function)
}

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let [nvme, other] = lab.topology.devices(["nvme.a", "nvme.b"])?;
    lab.driver.load(&[])?;
    leaves(lab, t, &nvme, lab.driver.name())?;
    if lab.driver.shows_domains() {
        leaves(lab, t, &nvme, NVME)?;
        shares(lab, t, &nvme, &other)?;
        does_not_end(lab, t, &nvme, &other)?;
        refuses(t, &other)?;
        is_clean(lab, t, &nvme)?;
    }
    Ok(())
}

/// Checks what the users of `driver` leave to the next one.
fn leaves(lab: &Lab, t: &mut Test<'_>, nvme: &Device, driver: &str) -> Result<()> {
    let bound = Bound::bind(driver, [nvme])?;
    let mut mark = Mark::here()?;
    let index = usize::from(driver != NVME);
    for (what, used, expected) in USES {
        found(lab, t, nvme, &format!("{what}, {driver}"), expected[index], || {
            let user = User::new()?;
            let controller = Controller::open(&user, nvme)?;
            used(&controller, nvme)?;
            nvme.write(METHODS, "\n")
        })?;
    }
    let killed = [SHUT_DOWN, RUNNING][index];
    found(lab, t, nvme, &format!("killed, {driver}"), killed, || {
        let holder = Holder::start(nvme)?;
        nvme.write(METHODS, "\n")?;
        holder.kill()?;
        lab.wait_unreferenced()
    })?;
    let what = format!("log lines about a shutdown, {driver}");
    t.eq(what, 0, mark.lines_with(&["shutdown not complete"])?.len());
    bound.release()
}

/// Lets a user `leave` the function, which is not reset then, and checks what the next one finds.
fn found(
    lab: &Lab,
    t: &mut Test<'_>,
    nvme: &Device,
    what: &str,
    expected: Status,
    leave: impl FnOnce() -> Result<()>,
) -> Result<()> {
    leave()?;
    lab.wait_idle(nvme)?;
    let found = Controller::open(&User::new()?, nvme)?.status();
    t.eq(format!("the next user finds ({what})"), expected, found);
    lab.wait_idle(nvme)?;
    nvme.write(METHODS, "default")
}

/// A function of each driver is on the bus, and its reset waits for both, in either order.
fn shares(lab: &Lab, t: &mut Test<'_>, nvme: &Device, other: &Device) -> Result<()> {
    let bound = (Bound::bind(NVME, [nvme])?, lab.bind([other])?);
    lab.domain(t, nvme, "a bus with both drivers", |domain| {
        (&*domain.kind, domain.members.len()) == ("bus", 2)
    })?;
    let bus = Counts::bus(1);
    for (first, at_first, second, at_second) in
        [(nvme, Counts::flr(1), other, bus), (other, Counts::NONE, nvme, Counts { flr: 1, ..bus })]
    {
        let user = User::new()?;
        let opened = [user.open(first)?, user.open(second)?];
        let mut mark = Mark::here()?;
        let [one, two] = opened;
        lab.close(t, &format!("at the close of {} first", first.role()), at_first, one)?;
        lab.close(t, &format!("at the close of {} last", second.role()), at_second, two)?;
        one_line(t, &mut mark, &["bus reset of bus", "done: 2 functions"])?;
    }
    let (one, two) = bound;
    one.release()?;
    two.release()
}

/// QEMU completes a shutdown at once. One that seems to go on delays the close by 5 s, unless root
/// resets the function, and no sibling.
fn does_not_end(lab: &Lab, t: &mut Test<'_>, nvme: &Device, other: &Device) -> Result<()> {
    let bound = (Bound::bind(NVME, [nvme])?, lab.bind([other])?);
    let resets = || nvme.write("reset", "1");
    end_of(t, nvme, &User::new()?, "after a reset by root", (-6, 0..2), resets)?;
    match User::with_iommufd() {
        // After `STAY`, and while the sibling is being opened, the rest of the 5 s.
        Ok(user) => end_of(t, nvme, &user, "after a sibling's open", (-110, 2..8), || {
            user.open(other).map(drop)
        })?,
        Err(e) => {
            t.skip("a sibling in the same IOMMU group is opened", format!("{e:#}"));
            end_of(t, nvme, &User::new()?, "alone", (-110, 3..8), || Ok(()))?;
        }
    }
    let (one, two) = bound;
    one.release()?;
    two.release()
}

/// Checks the error of a shutdown that does not end, and for how many seconds the close goes on
/// after `meanwhile`.
fn end_of(
    t: &mut Test<'_>,
    nvme: &Device,
    user: &User,
    what: &str,
    (error, seconds): (i32, Range<u64>),
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let controller = Controller::open(user, nvme)?;
    controller.enable(QUEUES)?;
    let mut mark = Mark::here()?;
    let shutting_down = Marked::shutting_down(nvme)?;
    let wait = thread::scope(|scope| {
        let close = scope.spawn(|| drop(controller));
        thread::sleep(wait::STAY);
        ensure!(!close.is_finished(), "the close does not wait, {what}");
        meanwhile()?;
        let start = Instant::now();
        result(close.join().map(Ok))?;
        Ok(start.elapsed())
    })?;
    drop(shutting_down);
    t.check(
        format!("the close goes on for {seconds:?} s, {what}"),
        seconds.contains(&wait.as_secs()),
        || format!("{wait:?}"),
    );
    let line = format!("shutdown not complete (error {error})");
    one_line(t, &mut mark, &[&nvme.bdf().to_string(), &line])
}

/// It is no driver for other functions, although a driver override matches any.
fn refuses(t: &mut Test<'_>, other: &Device) -> Result<()> {
    let mut mark = Mark::here()?;
    t.eq("binding another function", "ENODEV", errno(&other.bind(NVME)).as_str());
    one_line(t, &mut mark, &[&other.bdf().to_string(), "does not drive functions of its class"])?;
    other.release()
}

/// The shutdown is no obstacle to the proof that the function is clean.
fn is_clean(lab: &Lab, t: &mut Test<'_>, nvme: &Device) -> Result<()> {
    lab.driver.load_as_is(&[])?;
    let bound = Bound::bind(NVME, [nvme])?;
    lab.wait_idle(nvme)?;
    Controller::open(&User::new()?, nvme)?.enable(QUEUES)?;
    lab.wait_idle(nvme)?;
    let (found, calls) =
        lab.tracer.count(|| Ok(Controller::open(&User::new()?, nvme)?.status()))?;
    lab.resets(t, &calls.at_open(), "at the open of a clean controller", Counts::NONE);
    t.eq("its user finds", Status { asked: 0, status: 0 }, found);
    bound.release()
}
