// SPDX-License-Identifier: GPL-2.0

//! Functions of one bus with no reset of their own: the bus is reset when the last of them is
//! released, if and only if every function on it is the driver's.

use std::thread;

use crate::debugfs;
use crate::driver;
use crate::helper::DeviceLock;
use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::topology::Device;
use crate::trace::Calls;
use crate::trace::Counts;
use crate::vfio::User;
use crate::wait;
use crate::Result;

const NONE: Counts = Counts {
    flr: 0,
    bus: 0,
    slot: 0,
};
const ONE_BUS_RESET: Counts = Counts {
    flr: 0,
    bus: 1,
    slot: 0,
};

/// Functions A and B, which scenarios open, and C, which they only bind.
struct Bus {
    a: Device,
    b: Device,
    c: Device,
}

impl Bus {
    fn of(lab: &Lab) -> Result<Self> {
        let device = |role| lab.topology.device(role);
        Ok(Bus {
            a: device("bus.a")?,
            b: device("bus.b")?,
            c: device("bus.c")?,
        })
    }

    /// Opens A and B and releases A, then B; returns the resets at the release of B. Asserts
    /// that there is none before.
    fn use_a_and_b(&self, lab: &Lab, t: &mut Test, when: &str) -> Result<Calls> {
        let user = User::new()?;
        let (opened, calls) = lab
            .tracer
            .count(|| Ok((user.open(&self.a)?, user.open(&self.b)?)))?;
        lab.resets(t, &calls, &format!("at open {when}"), NONE);
        lab.power(t, &self.a, &format!("open {when}"), "D0")?;
        lab.power(t, &self.b, &format!("open {when}"), "D0")?;

        let (a, b) = opened;
        let calls = lab.release(a)?;
        lab.resets(t, &calls, &format!("at the release of A {when}"), NONE);
        lab.state(t, &self.a, &format!("released {when}"), "idle")?;
        lab.state(t, &self.b, &format!("still open {when}"), "open")?;
        lab.power(t, &self.a, &format!("released before B {when}"), "D3hot")?;
        lab.power(t, &self.b, &format!("still open {when}"), "D0")?;

        lab.release(b)
    }

    fn all_d3hot(&self, lab: &Lab, t: &mut Test, when: &str) -> Result<()> {
        for device in [&self.a, &self.b, &self.c] {
            lab.power(t, device, when, "D3hot")?;
        }
        Ok(())
    }
}

/// Scenario 4: one bus reset, at the last release.
pub(super) fn last_release(lab: &Lab, t: &mut Test) -> Result<()> {
    let bus = Bus::of(lab)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&bus.a, &bus.b, &bus.c])?;
    bus.all_d3hot(lab, t, "bound")?;

    // The second time shows that the first reset has left nothing behind that asks for another.
    for (resets, when) in [(1, "the first time"), (2, "the second time")] {
        let mut mark = Mark::here()?;
        let calls = bus.use_a_and_b(lab, t, when)?;
        lab.resets(
            t,
            &calls,
            &format!("at the release of B {when}"),
            ONE_BUS_RESET,
        );
        bus.all_d3hot(lab, t, &format!("released {when}"))?;
        lab.domain_idle(t, &bus.a, &format!("released {when}"), 0, resets)?;
        if lab.driver.shows_domains() {
            let done = format!("bus reset of bus {} done", bus.a.bus());
            one_line(t, &mut mark, &[&done], "that the bus was reset")?;
        }
    }
    binding.release()?;
    lab.unreferenced(t)
}

/// Scenario 5: no bus reset while a function on the bus is not the driver's.
pub(super) fn foreign(lab: &Lab, t: &mut Test) -> Result<()> {
    let bus = Bus::of(lab)?;
    driver::modprobe("pci_stub", &[])?;
    bus.c.bind(lab::STUB)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&bus.a, &bus.b])?;

    for (when, bound_elsewhere, locked) in [
        ("with C bound elsewhere", true, false),
        // Whoever it is bound to may hold its lock, and nobody has to wait for that.
        ("with C bound elsewhere and locked", true, true),
        ("with C unbound", false, false),
    ] {
        if !bound_elsewhere {
            bus.c.release()?;
        }
        let lock = locked.then(|| DeviceLock::hold(&bus.c)).transpose()?;
        let mut mark = Mark::here()?;
        let calls = bus.use_a_and_b(lab, t, when)?;
        drop(lock);
        lab.resets(t, &calls, &format!("at the release of B {when}"), NONE);
        lab.power(t, &bus.a, &format!("released {when}"), "D3hot")?;
        lab.power(t, &bus.b, &format!("released {when}"), "D3hot")?;
        lab.domain_idle(t, &bus.a, when, 2, 0)?;
        if lab.driver.shows_domains() {
            let skipped = format!("bus reset of bus {} skipped", bus.a.bus());
            let why = if bound_elsewhere {
                format!("{} is bound to {}", bus.c.bdf(), lab::STUB)
            } else {
                format!("{} is not bound to a driver", bus.c.bdf())
            };
            one_line(
                t,
                &mut mark,
                &[&skipped, &why],
                "which function stands in the way",
            )?;
        }
    }

    let late = lab.bind([&bus.c])?;
    lab.domain_idle(t, &bus.a, "with C bound to the driver", 2, 0)?;
    let when = "with C bound to the driver";
    let calls = bus.use_a_and_b(lab, t, when)?;
    lab.resets(
        t,
        &calls,
        &format!("at the release of B {when}"),
        ONE_BUS_RESET,
    );
    bus.all_d3hot(lab, t, &format!("released {when}"))?;
    lab.domain_idle(t, &bus.a, &format!("released {when}"), 0, 1)?;
    late.release()?;
    binding.release()?;
    lab.unreferenced(t)
}

/// Scenario 6: a bus reset that fails changes nothing, and what it owes is made up for.
pub(super) fn failed(lab: &Lab, t: &mut Test) -> Result<()> {
    let bus = Bus::of(lab)?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&bus.a, &bus.b, &bus.c])?;
    bus.all_d3hot(lab, t, "bound")?;

    let lock = fail(lab, t, &bus, "the first time")?;
    // A alone: that B is clean as well afterwards shows that its dirtiness was not lost.
    let user = User::new()?;
    let (opened, calls) = lab.tracer.count(|| {
        let opened = user.open(&bus.a)?;
        drop(lock);
        thread::sleep(wait::STAY);
        Ok(opened)
    })?;
    lab.resets(t, &calls, "while A is open", NONE);
    lab.domain(t, &bus.a, "no attempt is due while A is open", |domain| {
        let due = (domain.failed, domain.dirty());
        if due == (0, 2) {
            return Ok(());
        }
        Err(format!("expected 0 failed, 2 dirty got {due:?}"))
    })?;
    let calls = lab.release(opened)?;
    lab.resets(t, &calls, "at the next release", ONE_BUS_RESET);
    bus.all_d3hot(lab, t, "after the next release")?;
    lab.domain_idle(t, &bus.a, "after the next release", 0, 1)?;
    drop(user);

    if lab.driver.shows_domains() {
        let lock = fail(lab, t, &bus, "the second time")?;
        let (clean, calls) = lab.tracer.count(|| {
            drop(lock);
            Ok(wait::until(
                wait::SETTLE,
                || debugfs::domain_of(&lab.driver.module(), &bus.a),
                |domain| matches!(domain, Ok(Some(domain)) if domain.dirty() == 0),
            ))
        })?;
        clean?;
        lab.resets(t, &calls, "with C unlocked and nobody there", ONE_BUS_RESET);
        bus.all_d3hot(lab, t, "after another attempt")?;
        lab.domain_idle(t, &bus.a, "after another attempt", 0, 2)?;
    } else {
        t.skip("there is another attempt", "vfio-pci makes none");
    }

    // And from here on everything is as if no reset had ever failed.
    let resets = lab.domain_resets(&bus.a)?;
    let calls = bus.use_a_and_b(lab, t, "with C unlocked")?;
    lab.resets(
        t,
        &calls,
        "at the release of B with C unlocked",
        ONE_BUS_RESET,
    );
    lab.domain_idle(t, &bus.a, "with C unlocked", 0, resets + 1)?;
    binding.release()?;
    lab.unreferenced(t)
}

/// Locks C, and has the bus reset at the release of B fail by that.
fn fail(lab: &Lab, t: &mut Test, bus: &Bus, when: &str) -> Result<DeviceLock> {
    let resets = lab.domain_resets(&bus.a)?;
    let mut mark = Mark::here()?;
    let lock = DeviceLock::hold(&bus.c)?;
    let calls = bus.use_a_and_b(lab, t, &format!("with C locked {when}"))?;
    lab.resets(
        t,
        &calls,
        &format!("at the release of B with C locked {when}"),
        NONE,
    );
    // A and C had been idle before: their state is kept. B has just become idle.
    bus.all_d3hot(lab, t, &format!("after it failed {when}"))?;
    lab.domain_idle(t, &bus.a, &format!("after it failed {when}"), 2, resets)?;
    if lab.driver.shows_domains() {
        let failed = format!("bus reset of bus {} failed", bus.a.bus());
        one_line(
            t,
            &mut mark,
            &[&failed, "2 functions stay dirty, next attempt in 100 ms"],
            "that the reset failed",
        )?;
    }
    Ok(lock)
}

fn one_line(t: &mut Test, mark: &mut Mark, parts: &[&str], what: &str) -> Result<()> {
    let all = mark.lines()?;
    let matching = all
        .iter()
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .count();
    t.check(format!("one log line says {what}"), matching == 1, || {
        format!(
            "expected one line with {parts:?} got {matching} among:\n{}",
            all.join("\n")
        )
    });
    Ok(())
}
