// SPDX-License-Identifier: GPL-2.0

//! A function whose config space reads as all ones is neither opened nor reset, and delays no
//! other. When it answers again, it works and is reset.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;
use lab::vfio::User;

use super::attributes::{read, Uevents};
use super::{errno, one_line};
use crate::registers::{bars, find, Content, Registers};

const NONE: Counts = Counts::NONE;

/// The PCI core waits a minute for a function that it resets.
const SOON: Duration = Duration::from_secs(10);

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let pair = lab.topology.family("pair", 2)?;
    let bus = lab.topology.devices(["bus.a", "bus.b", "bus.c"])?;
    let pf = lab.topology.device(PF)?;

    lab.driver.load(&[])?;
    let binding = lab.bind(pair.iter().chain(&bus).chain([&pf]))?;
    // Alone on its bus, its reset goes on to that of the bus.
    silenced(lab, t, &pf, None, false, Counts::flr(2))?;
    // Each is in an IOMMU group of its own.
    silenced(lab, t, &pair[0], Some(&pair[1]), false, Counts::flr(2))?;
    silenced(lab, t, &pair[0], Some(&pair[1]), true, Counts::flr(2))?;
    // One reset of the bus before the open, and one at the close.
    silenced(lab, t, &bus[0], None, true, Counts::bus(2))?;
    binding.release()?;

    lab.driver.load_as_is(&[])?;
    let (function, sibling) = (&pair[0], &pair[1]);
    let silent = Marked::silent(function)?;
    let binding = lab.counted(t, "when it is bound without an answer", NONE, || {
        let binding = lab.bind([function])?;
        lab.wait_idle(function)?;
        Ok(binding)
    })?;
    drop(silent);
    // Once at open, once in the background.
    finds_zero(lab, t, function, "answers after it was bound", Counts::flr(2))?;
    let sibling_binding = lab.bind([sibling])?;
    lab.wait_idle(sibling)?;
    // It was clean.
    silenced(lab, t, function, Some(sibling), false, Counts::flr(2))?;
    silenced(lab, t, function, Some(sibling), true, Counts::flr(2))?;
    sibling_binding.release()?;
    announced(lab, t, function)?;
    binding.release()
}

/// Each time that a function stops answering, user space learns of it once.
fn announced(lab: &Lab, t: &mut Test<'_>, function: &Device) -> Result<()> {
    // It is not proven clean in between, which would be announced as well.
    function.write("power/control", "on")?;
    let mut uevents = Uevents::listen()?;
    for when in ["for the first time", "for the second time"] {
        let silent = Marked::silent(function)?;
        for attempt in 1..=2 {
            let what = format!("open {attempt}, gone {when}");
            t.is(what, "ENODEV", errno(&User::new()?.open(function)));
        }
        t.is(format!("state, gone {when}"), "gone", read(function, "state")?);
        t.eq(format!("uevents, gone {when}"), 1, uevents.of(function, "gone")?);
        drop(silent);
        drop(User::new()?.open(function)?);
        lab.wait_idle(function)?;
        t.is(format!("state after it was gone {when}"), "unknown", read(function, "state")?);
    }
    function.write("power/control", "auto")
}

/// A function stops answering, and answers again. If it is used, that is in the hands of a user,
/// who leaves content. `again` are its resets after that.
fn silenced(
    lab: &Lab,
    t: &mut Test<'_>,
    function: &Device,
    sibling: Option<&Device>,
    is_used: bool,
    again: Counts,
) -> Result<()> {
    let state = if is_used { "open" } else { "unused" };
    let when = format!("{} while {state}", function.role());
    let before = bars(function)?;
    let user = User::new()?;
    let registers = is_used.then(|| Registers::open(&user, function));
    let registers = registers.transpose()?;
    registers.iter().try_for_each(Registers::write)?;
    drop(user);
    let mut mark = Mark::here()?;
    let silent = Marked::silent(function)?;
    if let Some(registers) = registers {
        soon(t, &format!("the close: {when}"), |t| {
            lab.close(t, &format!("at close: {when}"), NONE, registers)
        })?;
        lab.wait_idle(function)?;
        let name = function.bdf().to_string();
        one_line(t, &mut mark, &[&name, "not reset: it does not answer"])?;
        let dirty = format!("dirty: {when}");
        lab.domain(t, function, &dirty, |domain| domain.dirty() == 1)?;
    }
    refused(lab, t, function, &when)?;
    beside(lab, t, sibling, &when)?;
    drop(silent);
    finds_zero(lab, t, function, &when, again)?;
    let after = bars(function)?;
    t.check(format!("BARs: {when}"), before == after, || format!("{before:x?} became {after:x?}"));
    Ok(())
}

/// Checks that the open of a function fails soon, without a reset.
fn refused(lab: &Lab, t: &mut Test<'_>, function: &Device, when: &str) -> Result<()> {
    let mut mark = Mark::here()?;
    let user = User::new()?;
    let result = soon(t, &format!("the open: {when}"), |t| {
        lab.counted(t, &format!("at open: {when}"), NONE, || Ok(user.open(function)))
    })?;
    t.seen(format!("errno of the open: {when}"), "ENODEV", &errno(&result));
    let name = function.bdf().to_string();
    one_line(t, &mut mark, &[&name, "not opened: it does not answer"])
}

/// Checks that a sibling works as before.
fn beside(lab: &Lab, t: &mut Test<'_>, sibling: Option<&Device>, when: &str) -> Result<()> {
    let Some(sibling) = sibling else {
        return Ok(());
    };
    let what = format!("open and close of a sibling: {when}");
    let ((), calls) = lab.tracer.count(|| {
        soon(t, &what, |_| {
            drop(User::new()?.open(sibling)?);
            lab.wait_idle(sibling)
        })
    })?;
    t.eq(format!("bus resets at {what}"), 0, calls.counts().bus);
    Ok(())
}

/// Checks that the function is reset, and that its next user finds nothing of the last one.
fn finds_zero(
    lab: &Lab,
    t: &mut Test<'_>,
    function: &Device,
    when: &str,
    resets: Counts,
) -> Result<()> {
    let content = lab.counted(t, &format!("at the next use: {when}"), resets, || {
        let content = find(function)?;
        lab.wait_idle(function)?;
        Ok(content)
    })?;
    t.eq(format!("content: {when}"), Content::ZERO, content);
    lab.domain(t, function, &format!("none dirty: {when}"), |domain| domain.dirty() == 0)
}

/// Checks that `work` does not wait for a reset that waits for a function.
fn soon<T>(
    t: &mut Test<'_>,
    what: &str,
    work: impl FnOnce(&mut Test<'_>) -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let value = work(t)?;
    let time = start.elapsed();
    t.note(format!("{what} took {} ms", time.as_millis()));
    t.check(format!("{what} is soon over"), time < SOON, || format!("it took {time:?}"));
    Ok(value)
}
