// SPDX-License-Identifier: GPL-2.0

//! Users that are stopped or killed, and functions that are taken from their users. The next user
//! finds each function clean, nothing waits longer than for the user, and siblings do not wait.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Result};
use lab::machine::Lab;
use lab::report::Test;
use lab::sysfs::{self, Bdf};
use lab::topology::Device;
use lab::wait;

use super::errors::{inject_nonfatal, INJECTOR};
use super::{errno, with_module};
use crate::registers::{find, leave, Content, Holder};
use crate::together::{self, meanwhile, result};

const ZERO: Content = Content::ZERO;
const LEFT: Content = Content::LEFT;

const ROUNDS: usize = 10;
/// A driver that does DMA for the kernel.
const OTHER_DRIVER: &str = "virtio-pci";

/// Returns the content that the next user finds, and the longest wait for an unused function.
type Case = fn(&Lab) -> Result<(Content, Duration)>;

/// What happens to a function, and the content that is found then with vfio-pci.
const CASES: &[(&str, Content, Case)] = &[
    ("unbound by a killed task, its user stopped", ZERO, unbinder_killed),
    ("removed while open", ZERO, removed),
    ("siblings come and go", ZERO, removed_under_load),
    ("a stranger in its group", LEFT, stranger_in_group),
];

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    for (what, c, case) in CASES {
        lab.driver.load_as_is(&[])?;
        if let Some((content, wait)) = t.done(format!("{what}: ends"), case(lab)) {
            let expected = if lab.driver.shows_domains() { ZERO } else { *c };
            t.eq(format!("left to the next user: {what}"), expected, content);
            t.note(format!("{what}: the longest wait took {} ms", wait.as_millis()));
        }
        lab.restore()?;
    }
    reported(lab, t)
}

/// Two functions of a bus, each in an IOMMU group of its own, bound to the driver.
fn pair(lab: &Lab) -> Result<[Device; 2]> {
    let pair = lab.topology.devices(["pair.0", "pair.1"])?;
    pair.iter().try_for_each(|function| function.bind(lab.driver.name()))?;
    Ok(pair)
}

fn rounds(lab: &Lab) -> usize {
    lab.rounds.min(ROUNDS)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    together::timed(work).map(|(_, times)| times.length())
}

/// Binds a function again, and returns what its next user finds.
fn found(lab: &Lab, function: &Bdf, wait: Duration) -> Result<(Content, Duration)> {
    function.bind(lab.driver.name())?;
    Ok((find(function)?, wait))
}

fn unbinder_killed(lab: &Lab) -> Result<(Content, Duration)> {
    let [function, sibling] = pair(lab)?;
    let holder = Holder::start(&function)?;
    holder.stop()?;
    let path = sysfs::driver_path(lab.driver.name()).join("unbind");
    let script = format!("echo {} > {}", function.bdf(), path.display());
    let mut unbinder = Command::new("sh").args(["-c", &script]).spawn()?;
    thread::sleep(wait::STAY);
    unbinder.kill()?;
    let siblings = timed(|| leave(&sibling))?;
    ensure!(unbinder.try_wait()?.is_none(), "the unbind does not wait for the user");
    holder.kill()?;
    let wait = timed(|| Ok(unbinder.wait()?))?;
    if let Some(driver) = function.driver() {
        bail!("it is still bound to {driver}");
    }
    found(lab, &function, wait.max(siblings))
}

fn rescan(function: &Bdf) -> Result<()> {
    sysfs::rescan(function.bus())?;
    ensure!(function.path().exists(), "{function} is not found again");
    Ok(())
}

fn removed(lab: &Lab) -> Result<(Content, Duration)> {
    let [sibling, function] = pair(lab)?;
    let holder = Holder::start(&function)?;
    let (siblings, wait) = thread::scope(|scope| {
        let removing = scope.spawn(|| function.write("remove", "1"));
        thread::sleep(wait::STAY);
        ensure!(!removing.is_finished(), "nothing waits for the user");
        let siblings = timed(|| leave(&sibling))?;
        holder.kill()?;
        Ok((siblings, timed(|| result(removing.join()))?))
    })?;
    rescan(&function)?;
    found(lab, &function, wait.max(siblings))
}

fn removed_under_load(lab: &Lab) -> Result<(Content, Duration)> {
    let [sibling, function] = pair(lab)?;
    let longest = meanwhile(&[&|| leave(&sibling)], || {
        for _ in 0..rounds(lab) {
            leave(&function)?;
            function.write("remove", "1")?;
            rescan(&function)?;
            function.bind(lab.driver.name())?;
        }
        Ok(())
    })?;
    Ok((find(&function)?, longest))
}

/// A driver that the group of an open function cannot have, and the function is clean all the same
/// when its sibling has come back.
fn stranger_in_group(lab: &Lab) -> Result<(Content, Duration)> {
    let [function, sibling] = lab.topology.devices(["slot.a", "slot.b"])?;
    for function in [&function, &sibling] {
        function.bind(lab.driver.name())?;
    }
    let holder = Holder::start(&function)?;
    sibling.unbind()?;
    let refused = sibling.bind(OTHER_DRIVER);
    ensure!(errno(&refused) == "EBUSY", "binding {sibling} to {OTHER_DRIVER}: {refused:?}");
    holder.kill()?;
    lab.wait_unreferenced()?;
    let wait = timed(|| sibling.bind(lab.driver.name()))?;
    Ok((find(&function)?, wait))
}

/// Errors that PCI Express reports while functions are opened and closed.
fn reported(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let what = "errors (AER) reported all the time";
    with_module(t, what, INJECTOR, |t| {
        lab.driver.load_as_is(&[])?;
        let [function, sibling] = pair(lab)?;
        let inject = || (0..rounds(lab)).try_for_each(|_| inject_nonfatal(&function));
        // The recovery from an error locks the functions.
        let used = |function: &Bdf| {
            let used = leave(function);
            if errno(&used) == "EAGAIN" {
                Ok(())
            } else {
                used
            }
        };
        let longest = meanwhile(&[&|| used(&function), &|| used(&sibling)], inject);
        if let Some(longest) = t.done(format!("{what}: ends"), longest) {
            t.note(format!("{what}: the longest use took {} ms", longest.as_millis()));
        }
        t.eq(format!("left to the next user: {what}"), ZERO, find(&function)?);
        lab.restore()
    })
}
