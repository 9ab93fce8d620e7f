// SPDX-License-Identifier: GPL-2.0

//! The lock of the bridge above a function, which a reset needs only if it goes through the bridge.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use lab::helper::{self, Marked};
use lab::kmsg::Mark;
use lab::machine::{Lab, PF, PF_IN_SLOT};
use lab::report::Test;
use lab::resets::Counts;
use lab::sriov::VirtualFunctions;
use lab::sysfs::Bdf;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;

use crate::bench::measure::{open_and_close, Order, Sample};
use crate::together::{meanwhile, result};

const NONE: Counts = Counts::NONE;
const VFS: usize = 7;
const ROUNDS: usize = 7;

/// The longest that a function may ignore a function level reset, and so the kernel's wait for it.
const FLR_WAIT: Duration = Duration::from_millis(100);

/// The methods by which a function is reset, until this is dropped.
struct Methods<'a>(&'a Bdf);

impl<'a> Methods<'a> {
    fn choose(function: &'a Bdf, methods: &str) -> Result<Self> {
        function.write("reset_method", methods)?;
        Ok(Methods(function))
    }
}

impl Drop for Methods<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.0.write("reset_method", "default") {
            eprintln!("{} keeps other reset methods: {e:#}", self.0);
        }
    }
}

/// Functions that are opened together and closed together: each reset that is due is made, and
/// those of VFs are with the fixes for stable kernels alone.
pub(super) fn closed_together(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    // Each round waits for all functions to sleep.
    let rounds = lab.rounds.div_ceil(5);
    lab.driver.load(&[])?;
    for (access, user) in [("groups", User::new as fn() -> _), ("iommufd", User::with_iommufd)] {
        if let Err(e) = user() {
            t.skip(format!("by {access}"), format!("{e:#}"));
            continue;
        }
        for (role, place) in [(PF, "a port"), (PF_IN_SLOT, "a slot")] {
            let enabled = VirtualFunctions::enable(&*lab.topology.device(role)?, VFS)?;
            let what = format!("VFs below {place} by {access}");
            let rounds = lab.rounds.min(ROUNDS);
            together(lab, t, &what, &enabled.devices(), user, 0, rounds)?;
        }
        if lab.driver.shows_domains() {
            // The first ones have no reset, and two of the next ones share an IOMMU group.
            for (family, bus) in [("qemu", 1), ("flr", 0), ("pair", 0)] {
                let functions = lab.topology.family(family, 2)?;
                let what = format!("functions '{family}' by {access}");
                together(lab, t, &what, &functions, user, bus, rounds)?;
            }
        }
    }
    Ok(())
}

/// Opens and closes functions together, and checks their resets: `bus` resets of the bus at each
/// last close, or a reset of each function at each open and close.
fn together(
    lab: &Lab,
    t: &mut Test<'_>,
    what: &str,
    functions: &[Device],
    user: fn() -> Result<User>,
    bus: usize,
    rounds: usize,
) -> Result<()> {
    let due = match bus {
        0 => [Counts::flr(functions.len()); 2],
        _ => [NONE, Counts::bus(bus)],
    };
    let binding = lab.bind(functions)?;
    let sums = in_rounds(lab, functions, &user()?, due, rounds)?;
    for (when, sum) in ["open", "close"].into_iter().zip(sums) {
        let due = sum["due"];
        t.eq(format!("lost of {due} resets at {when} of {what}"), 0, sum["lost"]);
        if lab.driver.shows_domains() {
            let made = sum["function_resets"] + sum["bus_resets"];
            t.eq(format!("resets made at {when} of {what}"), due, made);
        }
    }
    let resets = (bus * rounds) as u64;
    lab.domain_idle(t, &functions[0], &format!("after all closes of {what}"), 0, resets)?;
    binding.release()
}

/// Opens and closes functions together, and returns the sums of the samples of both.
fn in_rounds(
    lab: &Lab,
    functions: &[Device],
    user: &User,
    due: [Counts; 2],
    rounds: usize,
) -> Result<[Sample; 2]> {
    let mut sums = [Sample::new(), Sample::new()];
    for _ in 0..rounds {
        let samples = open_and_close(&lab.tracer, user, functions, due, Order::Together)?;
        for (sum, sample) in sums.iter_mut().zip(samples) {
            for (key, value) in sample {
                *sum.entry(key).or_default() += value;
            }
        }
    }
    Ok(sums)
}

/// Returns how many resets of 7 VFs were due when they were closed together, and were lost.
pub fn lost_together(lab: &Lab, t: &mut Test<'_>) -> Result<(u64, u64)> {
    let enabled = VirtualFunctions::enable(&*lab.topology.device(PF)?, VFS)?;
    let vfs = enabled.devices();
    let methods = vfs[0].read("reset_method")?;
    t.note(format!("a VF of {PF} lists the reset methods '{methods}'"));
    let binding = lab.bind(&vfs)?;
    let due = [Counts::flr(VFS); 2];
    let [_, at_close] = in_rounds(lab, &vfs, &User::new()?, due, ROUNDS)?;
    binding.release()?;
    Ok((at_close["due"], at_close["lost"]))
}

/// A reset that goes through the bridge locks it.
pub(super) fn locked(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&["enable_sriov=1"])?;
    let pf = lab.topology.device(PF)?;
    let in_slot = lab.topology.device(PF_IN_SLOT)?;
    for methods in ["bus", "flr bus"] {
        let bus = methods == "bus";
        let expected = |count| if bus { count } else { Counts::flr(1) };
        alone(lab, t, &pf, methods, expected(Counts::bus(1)))?;
        alone(lab, t, &in_slot, methods, expected(Counts::slot(1)))?;
    }
    beside_vfs(lab, t, &pf)
}

/// The unbind, which holds the device lock, resets a function that was open until then, unless that
/// resets the slot or the bridge is locked.
pub(super) fn unbound_while_open(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load(&[])?;
    let [pf, in_slot, port] = lab.topology.devices([PF, PF_IN_SLOT, "igb.port"])?;
    unbound(lab, t, &pf, "flr bus", Counts::flr(1))?;
    unbound(lab, t, &pf, "bus", Counts::bus(1))?;
    unbound(lab, t, &in_slot, "bus", NONE)?;
    let _lock = Marked::locked(&port)?;
    unbound(lab, t, &pf, "bus", NONE)
}

/// A function alone on its bus is reset by its first method.
fn alone(lab: &Lab, t: &mut Test<'_>, pf: &Device, methods: &str, reset: Counts) -> Result<()> {
    let _methods = Methods::choose(pf, methods)?;
    let binding = lab.bind([pf])?;
    let user = User::new()?;
    let when = |what| format!("at {what} of {} by '{methods}'", pf.role());
    // PCI does not lock the bridge at open.
    let opened = lab.counted(t, &when("open"), reset, || user.open(pf))?;
    let close = || lab.close(t, &when("close"), reset, opened);
    let ((), unlocked) = helper::count_unlocked(close)?;
    t.seen(format!("bridges not locked {}", when("close")), 0, unlocked);
    drop(user);
    binding.release()
}

/// `bus` does not work for a function whose bus has others by the time of the close.
fn beside_vfs(lab: &Lab, t: &mut Test<'_>, pf: &Device) -> Result<()> {
    let _methods = Methods::choose(pf, "bus")?;
    let binding = lab.bind([pf])?;
    let user = User::new()?;
    let opened = user.open(pf)?;
    pf.write("sriov_drivers_autoprobe", "0")?;
    pf.write("sriov_numvfs", &VFS.to_string())?;
    let close = || lab.close(t, "when a PF is closed beside its VFs", NONE, opened);
    let ((), unlocked) = helper::count_unlocked(close)?;
    t.seen("bridges not locked beside VFs", 0, unlocked);
    pf.write("sriov_numvfs", "0")?;
    pf.write("sriov_drivers_autoprobe", "1")?;
    drop(user);
    binding.release()
}

fn unbound(lab: &Lab, t: &mut Test<'_>, pf: &Device, methods: &str, reset: Counts) -> Result<()> {
    let _methods = Methods::choose(pf, methods)?;
    let binding = lab.bind([pf])?;
    let user = User::new()?;
    let opened = user.open(pf)?;
    let mut mark = Mark::here()?;
    let what = format!("when {} is unbound while open, by '{methods}'", pf.role());
    let is_reset = reset != NONE;
    let unbind = || {
        thread::scope(|scope| {
            let unbinding = scope.spawn(|| pf.unbind());
            thread::sleep(wait::STAY);
            meanwhile(&[&|| pf.config().map(drop)], || {
                drop(opened);
                result(unbinding.join())
            })
        })
    };
    let count = || lab.counted(t, &what, reset, unbind);
    let (longest, unlocked) = helper::count_unlocked(count)?;
    t.eq(format!("bridges not locked {what}"), 0, unlocked);
    if is_reset {
        t.check(
            format!("reading the config space waits for the reset {what}"),
            longest >= FLR_WAIT / 2,
            || format!("the longest read took {longest:?}"),
        );
    }
    let lines = mark.lines()?;
    for (part, expected) in [
        ("function reset done before it is unbound", usize::from(is_reset)),
        ("unbound without the reset that it still needs", usize::from(!is_reset)),
        ("is being unbound", 1),
        ("next attempt in", 0),
        (" failed with error", 0),
    ] {
        let found = lines.iter().filter(|line| line.contains(part)).count();
        if !t.eq(format!("log lines with '{part}' {what}"), expected, found) {
            t.note(lines.join("\n"));
        }
    }
    drop(user);
    binding.release()
}
