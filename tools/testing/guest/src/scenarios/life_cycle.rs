// SPDX-License-Identifier: GPL-2.0

//! The life of one function: bound and unbound, opened and released, powered down when idle.

use std::thread;

use crate::driver;
use crate::kmsg::Mark;
use crate::ktap::Test;
use crate::lab::Lab;
use crate::topology::Device;
use crate::trace::Counts;
use crate::vfio::User;
use crate::wait;
use crate::Error;
use crate::Result;

const REBINDS: usize = 50;

/// Scenario 1: bound and unbound many times, then the module goes, and nothing is left behind.
pub(super) fn rebind(lab: &Lab, t: &mut Test) -> Result<()> {
    let devices = [lab.topology.device("bus.a")?, lab.topology.device("bus.b")?];
    lab.driver.load(&[])?;
    lab.unreferenced(t)?;

    let mut bound = 0;
    let mut listed = 0;
    let mut unlisted = 0;
    lab.tracer.mark()?;
    for _ in 0..REBINDS {
        let binding = lab.bind(&devices)?;
        let ours = |d: &Device| d.driver().as_deref() == Some(lab.driver.name());
        let all_bound = devices.iter().all(ours);
        listed += usize::from(lab.listed(&devices[0])? && lab.listed(&devices[1])?);
        binding.release()?;
        let all_unbound = devices.iter().all(|d| d.driver().is_none());
        bound += usize::from(all_bound && all_unbound);
        unlisted += usize::from(lab.no_domains()?);
    }
    lab.resets(
        t,
        &lab.tracer.calls()?,
        "while binding and unbinding",
        Counts::default(),
    );
    t.observe("rebinds", bound);
    t.eq("bound and unbound each time", REBINDS, bound);
    if lab.driver.shows_domains() {
        t.eq("in a reset domain whenever bound", REBINDS, listed);
        t.eq("no reset domain whenever unbound", REBINDS, unlisted);
    }

    // Idle power is the same after the last bind as after any; one look is enough.
    let binding = lab.bind(&devices)?;
    for device in &devices {
        lab.power(t, device, "bound again", "D3hot")?;
    }
    binding.release()?;

    module(lab, t, &devices[0])
}

/// An open function is what holds the module: the count has to follow it both ways. And nothing
/// else is left of the module when it is removed.
fn module(lab: &Lab, t: &mut Test, device: &Device) -> Result<()> {
    if lab.driver.built_in()? {
        t.skip("an open function holds the module", driver::BUILT_IN);
        t.skip("rmmod", driver::BUILT_IN);
        return Ok(());
    }

    let binding = lab.bind([device])?;
    let user = User::new()?;
    let opened = user.open(device)?;
    let references = lab.driver.references()?.unwrap_or(0);
    t.observe("references while open", references);
    t.check("an open function holds the module", references > 0, || {
        "its reference count is 0"
    });
    drop((opened, user));
    binding.release()?;

    lab.unreferenced(t)?;
    let removed = lab.driver.unload();
    t.observe("rmmod", if removed.is_ok() { "done" } else { "refused" });
    t.done("rmmod", removed);
    t.check(
        "the driver is gone from sysfs",
        !lab.driver.registered(),
        || "it is still there",
    );
    t.check(
        "nothing is left in debugfs",
        !lab.driver.has_debugfs(),
        || "it is still there",
    );
    Ok(())
}

/// Scenario 3: D3hot while idle, D0 while open; with `disable_idle_d3`, D0 throughout.
pub(super) fn power_states(lab: &Lab, t: &mut Test) -> Result<()> {
    // Functions with a reset of their own and one without, on a bus that cannot be reset because
    // its siblings are not bound.
    let devices = [
        (lab.topology.device("flr.0")?, 1),
        (lab.topology.device("root.a")?, 1),
        (lab.topology.device("bus.a")?, 0),
    ];
    for (parameters, mode, idle) in [
        (&[][..], "by default", "D3hot"),
        (&["disable_idle_d3=1"], "with disable_idle_d3", "D0"),
    ] {
        lab.driver.load(parameters)?;
        for (device, flr) in &devices {
            let binding = lab.bind([device])?;
            idle_power(lab, t, device, &format!("bound {mode}"), idle)?;
            let own = Counts {
                flr: *flr,
                ..Counts::default()
            };
            let user = User::new()?;
            let (opened, calls) = lab.tracer.count(|| user.open(device))?;
            lab.resets(
                t,
                &calls,
                &format!("at the open of {} {mode}", device.role()),
                own,
            );
            lab.power_stays(t, device, &format!("open {mode}"), "D0")?;
            lab.state(t, device, mode, "open")?;
            let calls = lab.release(opened)?;
            lab.resets(
                t,
                &calls,
                &format!("at the release of {} {mode}", device.role()),
                own,
            );
            idle_power(lab, t, device, &format!("released {mode}"), idle)?;
            lab.domain_idle(t, device, mode, 1 - flr, 0)?;
            binding.release()?;
        }
        lab.unreferenced(t)?;
    }
    bus_reset_without_d3(lab, t)
}

/// A bus reset leaves the idle functions of the bus as it found them: in D0, if the driver may not
/// power them down.
fn bus_reset_without_d3(lab: &Lab, t: &mut Test) -> Result<()> {
    let devices = lab.topology.family("bus", 2)?;
    let binding = lab.bind(&devices)?;
    let user = User::new()?;
    let opened = user.open(&devices[0])?;
    let calls = lab.release(opened)?;
    let when = "at the last release on a bus with disable_idle_d3";
    lab.resets(
        t,
        &calls,
        when,
        Counts {
            bus: 1,
            ..Counts::default()
        },
    );
    for device in &devices {
        lab.power_stays(t, device, "after a bus reset with disable_idle_d3", "D0")?;
    }
    lab.domain_idle(
        t,
        &devices[0],
        "after a bus reset with disable_idle_d3",
        0,
        1,
    )?;
    drop(user);
    binding.release()?;
    lab.unreferenced(t)
}

/// An idle function reaches D3hot in its own time; that it is left in D0 shows only after a while.
fn idle_power(lab: &Lab, t: &mut Test, device: &Device, when: &str, idle: &str) -> Result<()> {
    if idle == "D0" {
        lab.power_stays(t, device, when, idle)
    } else {
        lab.power(t, device, when, idle)
    }
}

/// Scenario 8: the function is enabled with its first open and disabled with its last release.
pub(super) fn opened_twice(lab: &Lab, t: &mut Test) -> Result<()> {
    let device = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let _binding = lab.bind([&device])?;
    lab.power(t, &device, "bound", "D3hot")?;
    let user = User::new()?;

    let (first, calls) = lab.tracer.count(|| user.open(&device))?;
    lab.resets(
        t,
        &calls,
        "at the first open",
        Counts {
            flr: 1,
            ..Counts::default()
        },
    );
    let (second, calls) = lab.tracer.count(|| user.open(&device))?;
    lab.resets(t, &calls, "at the second open", Counts::default());
    lab.power(t, &device, "opened twice", "D0")?;

    let calls = lab.release(first)?;
    lab.resets(t, &calls, "at the first release", Counts::default());
    lab.power_stays(t, &device, "released once", "D0")?;
    lab.state(t, &device, "released once", "open")?;

    let calls = lab.release(second)?;
    lab.resets(
        t,
        &calls,
        "at the second release",
        Counts {
            flr: 1,
            ..Counts::default()
        },
    );
    lab.power(t, &device, "released twice", "D3hot")?;
    lab.domain_idle(t, &device, "released twice", 0, 0)?;
    drop(user);
    lab.unreferenced(t)
}

/// Scenario 9: an unbind waits for the user, then completes.
pub(super) fn unbind_open(lab: &Lab, t: &mut Test) -> Result<()> {
    let device = lab.topology.device("flr.0")?;
    lab.driver.load(&[])?;
    let binding = lab.bind([&device])?;
    let user = User::new()?;
    let opened = user.open(&device)?;

    lab.tracer.mark()?;
    let mut mark = Mark::here()?;
    let unbinding = thread::spawn({
        let bdf = device.bdf().clone();
        move || bdf.unbind()
    });
    // The write is on its way as soon as the thread runs; what is asserted is that it stays there.
    let returned = wait::until(
        4 * wait::STAY,
        || unbinding.is_finished(),
        |&returned| returned,
    );
    t.observe("unbind blocks while open", !returned);
    t.check(
        "unbind blocks while the function is open",
        !returned,
        || "it returned",
    );
    if !lab.driver.built_in()? {
        let references = lab.driver.references()?.unwrap_or(0);
        t.check(
            "the function still holds the module",
            references > 0,
            || "its count is 0",
        );
    }
    let warnings = mark.lines_with(&["No device request channel registered"])?;
    t.observe("warnings that the user is not told", warnings.len());
    t.eq(
        "that the user cannot be asked is warned about once",
        1,
        warnings.len(),
    );
    lab.power(t, &device, "open and being unbound", "D0")?;
    lab.state(t, &device, "being unbound", "open")?;

    drop(opened);
    let completed = wait::until(
        wait::SETTLE,
        || unbinding.is_finished(),
        |&completed| completed,
    );
    t.observe("unbind completes after release", completed);
    t.check(
        "unbind completes once the function is released",
        completed,
        || "it still blocks",
    );
    if !completed {
        return Err(Error::new(format!("unbinding {device} does not end")));
    }
    let result = unbinding
        .join()
        .map_err(|_| Error::new("the unbinding thread panicked"))?;
    t.done("unbind succeeds", result);
    let driver = device.driver();
    t.check("the function is unbound", driver.is_none(), || {
        format!("it is bound to {driver:?}")
    });
    let resets = lab.tracer.calls()?.counts();
    if lab.driver.shows_domains() {
        // The release cannot reset it, as whoever unbinds holds the device lock; the unbinding does.
        let expected = Counts {
            flr: 1,
            ..Counts::default()
        };
        t.eq("resets while unbinding", expected, resets);
        t.check("its reset domain is gone", lab.no_domains()?, || {
            "it is still in debugfs"
        });
    } else {
        t.note(format!("resets while unbinding, not compared: {resets}"));
    }
    drop(user);
    binding.release()?;
    lab.unreferenced(t)
}
