// SPDX-License-Identifier: GPL-2.0

//! Opening a function whose device lock is held. It cannot be reset then, so the open fails, leaves
//! nothing behind, and the next one succeeds.

use anyhow::Result;
use lab::helper::Marked;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;
use lab::vfio::User;

use super::errno;

const NONE: Counts = Counts::NONE;
const OWN: Counts = Counts::flr(1);

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let device = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&device])?;
    let lock = Marked::locked(&device)?;
    refused(lab, t, &device, "while it is locked")?;
    lab.unreferenced(t)?;
    lab.power(t, &device, "refused", "D3hot")?;
    lab.domain_idle(t, &device, "refused", 0, 0)?;
    drop(lock);

    let user = User::new()?;
    let opened = lab.counted(t, "at open with the lock free", OWN, || user.open(&device))?;
    lab.power(t, &device, "open with the lock free", "D0")?;
    lab.state(t, &device, "with the lock free", "open")?;
    lab.close(t, "at close", OWN, opened)?;
    lab.power(t, &device, "closed", "D3hot")?;
    lab.domain_idle(t, &device, "closed", 0, 0)?;
    binding.release()
}

/// Checks that `device`, whose lock is held, is neither opened nor reset.
fn refused(lab: &Lab, t: &mut Test<'_>, device: &Device, when: &str) -> Result<()> {
    let user = User::new()?;
    let result = lab.counted(t, &format!("at an open {when}"), NONE, || Ok(user.open(device)))?;
    let what = format!("errno of an open {when}");
    t.seen(what, "EAGAIN", &errno(&result));
    Ok(())
}
