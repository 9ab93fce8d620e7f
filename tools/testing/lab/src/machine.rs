// SPDX-License-Identifier: GPL-2.0

//! The machine of a test: the driver under test, the devices, the tracer, and checks on them.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};

use crate::debugfs::{self, Domain};
use crate::driver::{self, Driver};
use crate::helper;
use crate::report::Test;
use crate::resets::{Calls, Counts};
use crate::sriov::{self, VirtualFunctions};
use crate::sysfs::{self, Bdf};
use crate::topology::{Device, Topology};
use crate::trace::Tracer;
use crate::wait;

/// A driver to bind functions to that are not those of the driver under test.
pub const STUB: &str = "pci-stub";

/// The role of the physical function.
pub const PF: &str = "igb.pf";

/// The role of another one, in a slot.
pub const PF_IN_SLOT: &str = "lone.pf";

#[derive(Debug)]
pub struct Lab {
    pub driver: Driver,
    pub topology: Topology,
    pub tracer: Tracer,
    /// The directory of the results.
    pub results: PathBuf,
    /// How often to repeat a race.
    pub rounds: usize,
}

/// Functions bound to a driver. Dropping it unbinds them.
#[derive(Debug)]
pub struct Bound<'a>(Vec<&'a Device>);

impl Lab {
    /// Starts the tracer, and unbinds functions that an earlier program left bound.
    pub fn new(driver: &str, results: &Path, rounds: usize) -> Result<Self> {
        let lab = Lab {
            driver: Driver::new(driver),
            topology: Topology::read(results)?,
            tracer: Tracer::start(true)?,
            results: results.to_owned(),
            rounds,
        };
        lab.restore()?;
        Ok(lab)
    }

    pub fn bind<'a>(&self, devices: impl IntoIterator<Item = &'a Device>) -> Result<Bound<'a>> {
        Bound::bind(self.driver.name(), devices)
    }

    /// Does `work`, and checks and observes its resets.
    pub fn counted<T>(
        &self,
        t: &mut Test<'_>,
        when: &str,
        expected: Counts,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let (value, calls) = self.tracer.count(work)?;
        self.resets(t, &calls, when, expected);
        Ok(value)
    }

    /// Closes what is open, and checks and observes the resets.
    pub fn close<T>(
        &self,
        t: &mut Test<'_>,
        when: &str,
        expected: Counts,
        opened: T,
    ) -> Result<()> {
        self.counted(t, when, expected, || {
            drop(opened);
            Ok(())
        })
    }

    /// Checks and observes a number of resets.
    pub fn resets(&self, t: &mut Test<'_>, calls: &Calls, when: &str, expected: Counts) {
        let got = calls.counts();
        t.observe(format!("resets {when}"), got);
        if !t.eq(format!("resets {when}: {expected}"), expected, got) {
            t.note(calls);
        }
    }

    /// Checks and observes the power state that `device` reaches.
    pub fn power(
        &self,
        t: &mut Test<'_>,
        device: &Device,
        when: &str,
        expected: &str,
    ) -> Result<()> {
        let got = device.wait_power_state(expected)?;
        t.seen(format!("power state of {device} {when}"), expected, &got);
        Ok(())
    }

    /// Checks that the driver's module has no reference, if it is loaded.
    pub fn unreferenced(&self, t: &mut Test<'_>) -> Result<()> {
        if let Some(count) = self.driver.references()? {
            t.seen("the module's reference count", 0, count);
        }
        Ok(())
    }

    /// Waits for the module's last reference to go. The kernel closes the files of a process after
    /// its parent learns of its end.
    pub fn wait_unreferenced(&self) -> Result<()> {
        let gone = |references: &Result<Option<u32>>| matches!(references, Ok(Some(0) | None));
        wait::until(wait::SETTLE, || self.driver.references(), gone).map(drop)
    }

    /// Waits until `function` is neither used nor cleaned, if the driver shows that.
    pub fn wait_idle(&self, function: &Bdf) -> Result<()> {
        let idle = || -> Result<bool> {
            let domain = self.domain_of(function)?;
            let member = domain.as_ref().and_then(|domain| domain.member(function));
            Ok(member.is_none_or(|member| member.state == "idle"))
        };
        let idle = wait::until(wait::SETTLE, idle, |idle| !matches!(idle, Ok(false)))?;
        ensure!(idle, "{function} does not become idle");
        Ok(())
    }

    /// Returns the reset domains, if the driver shows them.
    pub fn domains(&self) -> Result<Vec<Domain>> {
        match self.driver.shows_domains() {
            true => debugfs::domains(),
            false => Ok(Vec::new()),
        }
    }

    /// Returns the reset domain of `function`, which may not be in more than one.
    pub fn domain_of(&self, function: &Bdf) -> Result<Option<Domain>> {
        let mut found = self.domains()?;
        found.retain(|domain| domain.member(function).is_some());
        ensure!(found.len() <= 1, "{function} is in the domains {found:?}");
        Ok(found.pop())
    }

    /// Checks the reset domain of `device`, if the driver shows its domains.
    pub fn domain(
        &self,
        t: &mut Test<'_>,
        device: &Device,
        what: &str,
        holds: impl FnOnce(&Domain) -> bool,
    ) -> Result<()> {
        if self.driver.shows_domains() {
            let domain = self.domain_of(device)?;
            let what = format!("reset domain of {device}: {what}");
            let holds = domain.as_ref().is_some_and(holds);
            t.check(what, holds, || format!("it is {domain:#?}"));
        }
        Ok(())
    }

    /// Checks that all members of the domain of `device` are idle, the number of dirty ones, and
    /// the number of resets of the domain.
    pub fn domain_idle(
        &self,
        t: &mut Test<'_>,
        device: &Device,
        when: &str,
        dirty: usize,
        resets: u64,
    ) -> Result<()> {
        let what = format!("idle, {dirty} dirty, {resets} resets {when}");
        self.domain(t, device, &what, |domain| {
            let idle = domain.members.iter().all(|m| m.state == "idle");
            idle && (domain.dirty(), domain.resets) == (dirty, resets)
        })
    }

    pub fn state(
        &self,
        t: &mut Test<'_>,
        device: &Device,
        when: &str,
        expected: &str,
    ) -> Result<()> {
        self.domain(t, device, &format!("{expected} {when}"), |domain| {
            domain.member(device).is_some_and(|m| m.state == expected)
        })
    }

    /// Restores the machine's initial state: functions unbound, no virtual functions, modules
    /// removed.
    pub fn restore(&self) -> Result<()> {
        if driver::references(helper::MODULE)?.is_some() {
            driver::rmmod(helper::MODULE)?;
        }
        let drivers = [self.driver.name(), STUB, driver::REPLACED, driver::NVME];
        for function in sysfs::all_functions()? {
            if drivers.contains(&function.driver().unwrap_or_default().as_str()) {
                function.release()?;
            }
        }
        for pf in [PF, PF_IN_SLOT] {
            let Ok(pf) = self.topology.device(pf) else {
                continue;
            };
            if pf.driver().as_deref() == Some(sriov::PF_STUB) || pf.read("sriov_numvfs")? != "0" {
                VirtualFunctions::disable(&pf)?;
            }
        }
        self.driver.unload()
    }
}

impl<'a> Bound<'a> {
    pub fn bind(driver: &str, devices: impl IntoIterator<Item = &'a Device>) -> Result<Self> {
        let mut bound = Bound(Vec::new());
        for device in devices {
            bound.0.push(device);
            device.bind(driver)?;
        }
        Ok(bound)
    }

    /// Unbinds the functions. Unlike dropping, this returns an error.
    pub fn release(mut self) -> Result<()> {
        let devices = std::mem::take(&mut self.0);
        devices.into_iter().try_for_each(|device| device.release())
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        for device in &self.0 {
            if let Err(e) = device.release() {
                eprintln!("{device} was not released: {e:#}");
            }
        }
    }
}
