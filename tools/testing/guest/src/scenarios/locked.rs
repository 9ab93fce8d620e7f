// SPDX-License-Identifier: GPL-2.0

//! Scenario 18: a function is opened whose device lock is held elsewhere.
//!
//! The function cannot be reset then, and is not given to anybody in the state in which it was left.

use std::thread;

use nix::errno::Errno;

use super::errno;
use crate::debugfs;
use crate::helper::DeviceLock;
use crate::ktap::Test;
use crate::lab::Lab;
use crate::topology::Device;
use crate::trace::Counts;
use crate::vfio::User;
use crate::wait;
use crate::Result;

const NONE: Counts = Counts {
    flr: 0,
    bus: 0,
    slot: 0,
};
const OWN: Counts = Counts { flr: 1, ..NONE };
const BUS: Counts = Counts { bus: 1, ..NONE };

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    alone(lab, t)?;
    beside_dirty(lab, t)
}

/// Nothing is left of the attempt, and the next one succeeds.
fn alone(lab: &Lab, t: &mut Test) -> Result<()> {
    let device = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&device])?;
    let lock = DeviceLock::hold(&device)?;
    refused(lab, t, &device, "while it is locked")?;
    lab.unreferenced(t)?;
    lab.power(t, &device, "refused", "D3hot")?;
    lab.domain_idle(t, &device, "refused", 0, 0)?;
    drop(lock);

    let user = User::new()?;
    let (opened, calls) = lab.tracer.count(|| user.open(&device))?;
    lab.resets(t, &calls, "at open with the lock free", OWN);
    lab.power(t, &device, "open with the lock free", "D0")?;
    lab.state(t, &device, "with the lock free", "open")?;
    let calls = lab.release(opened)?;
    lab.resets(t, &calls, "at release", OWN);
    lab.power(t, &device, "released", "D3hot")?;
    lab.domain_idle(t, &device, "released", 0, 0)?;
    binding.release()?;
    lab.unreferenced(t)
}

/// A failed open counts as a release: the bus is reset if that is owed, as soon as it can be. With
/// vfio-pci that waits for the next release.
fn beside_dirty(lab: &Lab, t: &mut Test) -> Result<()> {
    let devices = lab.topology.family("flr", 3)?;
    let (dirty, locked, late) = (&devices[0], &devices[1], &devices[devices.len() - 1]);
    let others = devices.iter().filter(|device| *device != late);
    let binding = lab.bind(others)?;

    // Dirty, because its lock is held when it is released; and nothing cleans it, because there is
    // a stranger on the bus.
    let user = User::new()?;
    let opened = user.open(dirty)?;
    let lock = DeviceLock::hold(dirty)?;
    let calls = lab.release(opened)?;
    lab.resets(t, &calls, "at the release of a locked function", NONE);
    drop((lock, user));
    lab.domain_idle(t, dirty, "with a stranger on the bus", 1, 0)?;

    let stranger = lab.bind([late])?;
    let lock = DeviceLock::hold(locked)?;
    refused(lab, t, locked, "beside a dirty one")?;
    let owed_is_made = lab.driver.shows_domains();
    let ((), calls) = lab.tracer.count(|| {
        drop(lock);
        if !owed_is_made {
            thread::sleep(wait::STAY);
            return Ok(());
        }
        let domain = wait::until(
            wait::SETTLE,
            || debugfs::domain_of(&lab.driver.module(), dirty),
            |domain| matches!(domain, Ok(Some(domain)) if domain.dirty() == 0),
        );
        domain.map(|_| ())
    })?;
    let expected = if owed_is_made { BUS } else { NONE };
    // Not to be observed: here they differ.
    t.eq(
        format!("resets after the open that failed: {expected}"),
        expected,
        calls.counts(),
    );
    lab.power(t, locked, "after the open that failed", "D3hot")?;
    lab.domain_idle(t, dirty, "after the open that failed", 0, 1)?;
    stranger.release()?;
    binding.release()?;
    lab.unreferenced(t)
}

/// Asserts that `device`, whose lock is held, is not opened, and not reset either.
fn refused(lab: &Lab, t: &mut Test, device: &Device, when: &str) -> Result<()> {
    let user = User::new()?;
    let (result, calls) = lab.tracer.count(|| Ok(user.open(device)))?;
    lab.resets(t, &calls, &format!("at an open {when}"), NONE);
    let got = errno(&result);
    t.observe(format!("errno of an open {when}"), &got);
    t.eq(
        format!("{device} is not opened {when}"),
        format!("{:?}", Errno::EAGAIN),
        got,
    );
    Ok(())
}
