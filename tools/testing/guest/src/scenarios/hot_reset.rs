// SPDX-License-Identifier: GPL-2.0

//! Scenario 13: a QEMU is assigned all functions of a bus, none of which has a reset of its own. It
//! resets the bus through the driver, for all of them together, when it starts and whenever its
//! guest reboots.

use crate::ktap::Test;
use crate::lab::Lab;
use crate::qemu::HotReset;
use crate::qemu::Qemu;
use crate::topology::Device;
use crate::trace::Counts;
use crate::Result;

const FUNCTIONS: usize = 8;
const REBOOTS: usize = 2;

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
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
        t.eq(format!("BARs that have an address {when}"), 0, bars);
        hot_resets.expect(lab, t, &qemu, &when, 1)?;

        // The firmware finds that it has run before, and resets the machine once more itself.
        let before = qemu.resets()?;
        lab.tracer.mark()?;
        qemu.resume()?;
        let again = qemu.wait_seen(FUNCTIONS)?;
        let by_firmware = qemu.resets()? - before;
        let when = format!("in the firmware {when}");
        hot_resets.expect(lab, t, &qemu, &when, by_firmware)?;
        let same = again == seen;
        t.observe(format!("the same is set up {when}"), same);
        t.check(format!("the same is seen and set up {when}"), same, || {
            format!("expected {seen:?} got {again:?}")
        });
    }

    lab.tracer.mark()?;
    let status = qemu.quit()?;
    t.check("QEMU quits", status.success(), || status);
    lab.comes_to_be_unreferenced(t)?;
    for device in &devices {
        lab.power(t, device, "after QEMU", "D3hot")?;
    }
    let calls = lab.tracer.calls()?;
    lab.resets(t, &calls, "after QEMU", bus_resets(1));
    t.eq(
        "resets at the last release",
        bus_resets(1),
        calls.at_release().counts(),
    );
    lab.domain_idle(t, &devices[0], "after QEMU", 0, hot_resets.resets + 1)?;
    binding.release()?;
    lab.unreferenced(t)
}

fn bus_resets(bus: usize) -> Counts {
    Counts {
        bus,
        ..Counts::default()
    }
}

/// What QEMU, which has all of `devices`, makes of resets of its machine.
struct HotResets<'a> {
    devices: &'a [Device],
    /// How many hot resets of QEMU's trace have been looked at.
    traced: usize,
    /// How many resets of the bus there were.
    resets: u64,
}

impl HotResets<'_> {
    /// Asserts that since the last time, and the tracer's last mark, there were `expected` resets
    /// of the bus: hot resets of all functions together. QEMU also wants one for each function
    /// alone, but does not ask for it, as the function is not alone.
    fn expect(
        &mut self,
        lab: &Lab,
        t: &mut Test,
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
        t.eq(
            format!("results of hot resets of all {when}"),
            vec!["Success"; expected].join(", "),
            results(&multi),
        );
        let count = self.devices.len();
        t.check(
            format!("hot resets of all affect {count} functions {when}"),
            multi.iter().all(|reset| reset.affected == count),
            || format!("{multi:?}"),
        );
        t.observe(format!("hot resets of one {when}"), one.len());
        t.eq(
            format!("results of hot resets of one {when}"),
            String::new(),
            results(&one),
        );

        let calls = lab.tracer.calls()?;
        lab.resets(t, &calls, when, bus_resets(expected));
        t.eq(
            format!("resets that QEMU asked for {when}"),
            bus_resets(expected),
            calls.asked_by_user().counts(),
        );
        for device in self.devices {
            lab.power(t, device, when, "D0")?;
        }
        Ok(())
    }
}

/// What came of those that QEMU asked the kernel for.
fn results(resets: &[&HotReset]) -> String {
    let results = resets.iter().filter_map(|reset| reset.result.as_deref());
    results.collect::<Vec<_>>().join(", ")
}
