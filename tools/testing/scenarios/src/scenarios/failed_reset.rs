// SPDX-License-Identifier: GPL-2.0

//! A bus reset that fails changes nothing, and is made up for.

use anyhow::Result;
use lab::debugfs::Domain;
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;

use super::{errno, one_line};

const NONE: Counts = Counts::NONE;
const BUS: Counts = Counts::bus(1);

/// A and B are opened, C is only bound.
struct Bus {
    a: Device,
    b: Device,
    c: Device,
}

impl Bus {
    /// Opens A and B, and closes A, then B. Expects no reset before B is closed.
    fn use_a_and_b(&self, lab: &Lab, t: &mut Test<'_>, when: &str, at_close: Counts) -> Result<()> {
        let user = User::new()?;
        let (a, b) = lab.counted(t, &format!("at open {when}"), NONE, || {
            Ok((user.open(&self.a)?, user.open(&self.b)?))
        })?;
        lab.close(t, &format!("when A is closed {when}"), NONE, a)?;
        lab.close(t, &format!("when B is closed {when}"), at_close, b)
    }

    fn all_d3hot(&self, lab: &Lab, t: &mut Test<'_>, when: &str) -> Result<()> {
        let mut devices = [&self.a, &self.b, &self.c].into_iter();
        devices.try_for_each(|device| lab.power(t, device, when, "D3hot"))
    }
}

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let [a, b, c] = lab.topology.devices(["bus.a", "bus.b", "bus.c"])?;
    let bus = Bus { a, b, c };
    lab.driver.load(&[])?;
    let binding = lab.bind([&bus.a, &bus.b, &bus.c])?;
    bus.all_d3hot(lab, t, "bound")?;

    let lock = fail(lab, t, &bus)?;
    if lab.driver.shows_domains() {
        lab.counted(t, "with C unlocked and the bus unused", BUS, || {
            drop(lock);
            comes_clean(lab, &bus.a)
        })?;
        bus.all_d3hot(lab, t, "after another attempt")?;
        lab.domain_idle(t, &bus.a, "after another attempt", 0, 1)?;
        asleep(lab, t, &bus)?;
        unplugged(lab, t, &bus)?;
    } else {
        drop(lock);
        t.skip("there is another attempt", "vfio-pci makes none");
    }

    // From here on, all is as if no reset had failed.
    bus.use_a_and_b(lab, t, "with C unlocked", BUS)?;
    // One of them came before an open.
    lab.domain_idle(t, &bus.a, "with C unlocked", 0, 5)?;
    binding.release()
}

/// C cannot be resumed for the reset, as while the system sleeps. Another attempt is made.
fn asleep(lab: &Lab, t: &mut Test<'_>, bus: &Bus) -> Result<()> {
    let mut mark = Mark::here()?;
    let asleep = Marked::asleep(&bus.c)?;
    t.is("open of C, which cannot be resumed", "EACCES", errno(&User::new()?.open(&bus.c)));
    let user = User::new()?;
    let opened = user.open(&bus.a)?;
    lab.close(t, "when C cannot be resumed", NONE, opened)?;
    let failed = format!("bus reset of bus {} failed with error -13", bus.a.bus());
    one_line(t, &mut mark, &[&failed, "next attempt in 100 ms"])?;
    // An open cancels that attempt, and the close begins anew: later attempts wait for longer.
    drop(user.open(&bus.a)?);
    one_line(t, &mut mark, &[&failed, "next attempt in 100 ms"])?;
    lab.counted(t, "when C can be resumed again", BUS, || {
        drop(asleep);
        comes_clean(lab, &bus.a)
    })?;
    bus.all_d3hot(lab, t, "after C could not be resumed")?;
    lab.domain_idle(t, &bus.a, "after C was resumed", 0, 2)
}

/// A function that was unplugged is not reset with its bus. The next close resets the others.
fn unplugged(lab: &Lab, t: &mut Test<'_>, bus: &Bus) -> Result<()> {
    let mut mark = Mark::here()?;
    let user = User::new()?;
    let opened = user.open(&bus.a)?;
    let unplugged = Marked::unplugged(&bus.c)?;
    lab.close(t, "with C unplugged", NONE, opened)?;
    let line = format!("{} was unplugged", bus.c.bdf());
    one_line(t, &mut mark, &["bus reset of", &line])?;
    drop(unplugged);
    let opened = user.open(&bus.a)?;
    lab.close(t, "with C back", BUS, opened)
}

/// Waits until no member of the domain of `device` is dirty.
pub(super) fn comes_clean(lab: &Lab, device: &Device) -> Result<()> {
    let domain = || lab.domain_of(device);
    let clean =
        |domain: &Result<Option<Domain>>| matches!(domain, Ok(Some(domain)) if domain.dirty() == 0);
    wait::until(wait::SETTLE, domain, clean).map(drop)
}

/// Locks C, so that the bus reset fails when B is closed.
fn fail(lab: &Lab, t: &mut Test<'_>, bus: &Bus) -> Result<Marked> {
    let mut mark = Mark::here()?;
    let lock = Marked::locked(&bus.c)?;
    bus.use_a_and_b(lab, t, "with C locked", NONE)?;
    // A and C were idle before and keep their power state. B has just become idle.
    bus.all_d3hot(lab, t, "after it failed")?;
    lab.domain_idle(t, &bus.a, "after it failed", 2, 0)?;
    let failed = format!("bus reset of bus {} failed", bus.a.bus());
    let parts = [&failed, "2 functions stay dirty, next attempt in 100 ms"];
    if lab.driver.shows_domains() {
        one_line(t, &mut mark, &parts)?;
    }
    Ok(lock)
}
