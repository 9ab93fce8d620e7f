// SPDX-License-Identifier: GPL-2.0

//! A QEMU with all functions of a bus, none of which has its own reset. It resets the bus through
//! the driver, for all of them together, when it starts and whenever its guest reboots.

use anyhow::Result;
use lab::machine::Lab;
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;

use crate::qemu::{HotReset, Qemu};

const FUNCTIONS: usize = 8;
const REBOOTS: usize = 2;

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let devices = lab.topology.family("qemu", FUNCTIONS)?;
    lab.driver.load(&[])?;
    let binding = lab.bind(&devices)?;
    for device in &devices {
        lab.power(t, device, "before QEMU", "D3hot")?;
    }

    lab.tracer.mark()?;
    let mut qemu = Qemu::start(&devices, &lab.results, "qemu-hot-reset")?;
    let seen = qemu.wait_seen(FUNCTIONS)?;
    let mut hot_resets = HotResets {
        devices: &devices,
        traced: 0,
        resets: 0,
    };
    hot_resets.expect(lab, t, &qemu, "at start", 1)?;
    for device in &devices {
        lab.state(t, device, "in QEMU", "open")?;
    }

    for reboot in 1..=REBOOTS {
        let when = format!("at reboot {reboot}");
        lab.tracer.mark()?;
        qemu.reset()?;
        let bars: usize = qemu.seen()?.iter().map(|function| function.bars).sum();
        t.eq(format!("BARs with an address {when}"), 0, bars);
        hot_resets.expect(lab, t, &qemu, &when, 1)?;

        // The firmware finds that it has run before, and resets the machine once more.
        let before = qemu.resets();
        lab.tracer.mark()?;
        qemu.resume()?;
        let again = qemu.wait_seen(FUNCTIONS)?;
        let by_firmware = qemu.resets() - before;
        let when = format!("in the firmware {when}");
        hot_resets.expect(lab, t, &qemu, &when, by_firmware)?;
        let what = format!("the firmware sees the same {when}");
        t.seen(what, true, again == seen);
    }

    lab.tracer.mark()?;
    let status = qemu.quit()?;
    t.check("QEMU quits", status.success(), || status);
    lab.wait_unreferenced()?;
    lab.unreferenced(t)?;
    for device in &devices {
        lab.power(t, device, "after QEMU", "D3hot")?;
    }
    let calls = lab.tracer.calls()?;
    lab.resets(t, &calls, "after QEMU", Counts::bus(1));
    let at_release = calls.at_release().counts();
    t.eq("resets at the last close", Counts::bus(1), at_release);
    lab.domain_idle(t, &devices[0], "after QEMU", 0, hot_resets.resets + 1)?;
    binding.release()
}

/// The hot resets of a QEMU that has all of `devices`.
struct HotResets<'a> {
    devices: &'a [Device],
    /// The number of hot resets in QEMU's trace that were checked.
    traced: usize,
    /// The number of resets of the bus.
    resets: u64,
}

impl HotResets<'_> {
    /// Checks that there were `expected` hot resets of all functions together since the last
    /// check and the tracer's last mark. QEMU also considers one for each function alone, but
    /// finds that the function is not alone.
    fn expect(
        &mut self,
        lab: &Lab,
        t: &mut Test<'_>,
        qemu: &Qemu,
        when: &str,
        expected: usize,
    ) -> Result<()> {
        let all = qemu.hot_resets()?;
        let (multi, one): (Vec<&HotReset>, Vec<&HotReset>) =
            all[self.traced..].iter().partition(|reset| reset.multi);
        self.traced = all.len();
        self.resets += expected as u64;
        t.observe(format!("hot resets of all {when}"), multi.len());
        let success = vec!["Success"; expected].join(", ");
        let what = format!("results of hot resets of all {when}");
        t.eq(what, success, results(&multi));
        let count = self.devices.len();
        let affect_all = multi.iter().all(|reset| reset.affected == count);
        let what = format!("hot resets of all affect {count} functions {when}");
        t.check(what, affect_all, || format!("{multi:?}"));
        t.observe(format!("hot resets of one {when}"), one.len());
        let what = format!("results of hot resets of one {when}");
        t.eq(what, String::new(), results(&one));

        let calls = lab.tracer.calls()?;
        lab.resets(t, &calls, when, Counts::bus(expected));
        let asked = calls.asked_by_user().counts();
        let what = format!("resets that QEMU requested {when}");
        t.eq(what, Counts::bus(expected), asked);
        for device in self.devices {
            lab.power(t, device, when, "D0")?;
        }
        Ok(())
    }
}

/// Returns the results of those that QEMU requested from the kernel.
fn results(resets: &[&HotReset]) -> String {
    let results = resets.iter().filter_map(|reset| reset.result.as_deref());
    results.collect::<Vec<_>>().join(", ")
}
