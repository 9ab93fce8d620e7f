// SPDX-License-Identifier: GPL-2.0

//! What every scenario works with: the driver under test, the machine's devices, the tracer; and
//! the assertions that many of them make.

use std::path::PathBuf;

use crate::debugfs;
use crate::debugfs::Domain;
use crate::driver;
use crate::driver::Driver;
use crate::helper;
use crate::ktap::Test;
use crate::sriov;
use crate::sriov::VirtualFunctions;
use crate::sysfs;
use crate::sysfs::Bdf;
use crate::topology::Device;
use crate::topology::Topology;
use crate::trace::Calls;
use crate::trace::Counts;
use crate::trace::Tracer;
use crate::wait;
use crate::Result;

/// Drivers other than the one under test that scenarios bind functions to.
pub const STUB: &str = "pci-stub";

/// The driver that a PCI Express port has at boot.
pub const PORT_DRIVER: &str = "pcieport";

/// The role of the port that scenarios may take from its driver.
pub const PORT: &str = "port";

/// The role of the physical function.
pub const PF: &str = "igb.pf";

/// The machine, with the driver under test.
#[derive(Debug)]
pub struct Lab {
    /// The driver under test.
    pub driver: Driver,
    /// The devices.
    pub topology: Topology,
    /// The counter of resets.
    pub tracer: Tracer,
    /// Where results go.
    pub results: PathBuf,
    /// How often what may go differently each time is done.
    pub rounds: usize,
}

/// Functions bound to a driver; dropping it unbinds them.
#[derive(Debug)]
pub struct Bound<'a>(Vec<&'a Device>);

impl Lab {
    /// Binds all of `devices` to the driver under test and waits until they are idle.
    pub fn bind<'a>(&self, devices: impl IntoIterator<Item = &'a Device>) -> Result<Bound<'a>> {
        Bound::bind(self.driver.name(), devices)
    }

    /// Releases what is open; returns the resets that this took.
    pub fn release<T>(&self, opened: T) -> Result<Calls> {
        let ((), calls) = self.tracer.count(|| {
            drop(opened);
            Ok(())
        })?;
        Ok(calls)
    }

    /// Asserts and observes the power state that `device` comes to.
    pub fn power(&self, t: &mut Test, device: &Device, when: &str, expected: &str) -> Result<()> {
        let got = device.wait_power_state(expected)?;
        t.observe(format!("power {} {when}", device.role()), &got);
        t.eq(
            format!("{device} is in {expected} {when}"),
            expected.to_owned(),
            got,
        );
        Ok(())
    }

    /// Asserts and observes that `device` is in a power state and stays in it for a while.
    pub fn power_stays(
        &self,
        t: &mut Test,
        device: &Device,
        when: &str,
        expected: &str,
    ) -> Result<()> {
        let got = device.watch_power_state(expected)?;
        t.observe(format!("power {} {when}", device.role()), &got);
        t.eq(
            format!("{device} stays in {expected} {when}"),
            expected.to_owned(),
            got,
        );
        Ok(())
    }

    /// Asserts and observes how many resets there were.
    pub fn resets(&self, t: &mut Test, calls: &Calls, when: &str, expected: Counts) {
        let got = calls.counts();
        t.observe(format!("resets {when}"), got.to_string().replace(", ", " "));
        if !t.eq(format!("resets {when}: {expected}"), expected, got) {
            t.note(calls);
        }
    }

    /// Asserts that the last user of the driver's module is gone, if it is one.
    pub fn unreferenced(&self, t: &mut Test) -> Result<()> {
        if self.driver.built_in()? {
            return Ok(());
        }
        let references = self.driver.references()?;
        let shown = references.map_or("not loaded".to_owned(), |count| count.to_string());
        t.observe("references", &shown);
        t.eq("the module's reference count", "0", &shown);
        Ok(())
    }

    /// Waits until no user of the driver's module is left, if it is one, and asserts that it came
    /// to that. The kernel closes the files of a process after its parent has heard of its end.
    pub fn comes_to_be_unreferenced(&self, t: &mut Test) -> Result<()> {
        wait::until(
            wait::SETTLE,
            || self.driver.references(),
            // One that is built in has no count.
            |references| matches!(references, Ok(Some(0) | None)),
        )?;
        self.unreferenced(t)
    }

    /// Whether the driver shows `function` in a reset domain; never, if it shows none at all.
    pub fn listed(&self, function: &Bdf) -> Result<bool> {
        if !self.driver.shows_domains() {
            return Ok(false);
        }
        Ok(debugfs::domain_of(&self.driver.module(), function)?.is_some())
    }

    /// Whether the driver shows no reset domain.
    pub fn no_domains(&self) -> Result<bool> {
        if !self.driver.shows_domains() {
            return Ok(true);
        }
        Ok(debugfs::domains(&self.driver.module())?.is_empty())
    }

    /// Asserts on the reset domain of `device`, if the driver shows its domains. Without a
    /// domain, the assertion fails.
    pub fn domain<D: std::fmt::Display>(
        &self,
        t: &mut Test,
        device: &Device,
        what: &str,
        holds: impl FnOnce(&Domain) -> std::result::Result<(), D>,
    ) -> Result<()> {
        if !self.driver.shows_domains() {
            return Ok(());
        }
        let what = format!("reset domain of {device}: {what}");
        let module = self.driver.module();
        match debugfs::domain_of(&module, device)? {
            None => t.check(what, false, || "it is in no domain"),
            Some(domain) => match holds(&domain) {
                Ok(()) => t.check(what, true, || ""),
                Err(why) => {
                    let text = debugfs::text(&module)?;
                    t.check(what, false, || format!("{why}, in:\n{text}"));
                }
            },
        }
        Ok(())
    }

    /// Asserts how many members of the domain of `device` are dirty, that all are idle, and how
    /// many resets the domain has had.
    pub fn domain_idle(
        &self,
        t: &mut Test,
        device: &Device,
        when: &str,
        dirty: usize,
        resets: u64,
    ) -> Result<()> {
        let what = format!("idle, {dirty} dirty, {resets} resets {when}");
        self.domain(t, device, &what, |domain| {
            if let Some(busy) = domain.members.iter().find(|m| m.state != "idle") {
                return Err(format!("{} is {}", busy.function, busy.state));
            }
            if domain.dirty() != dirty {
                return Err(format!(
                    "expected {dirty} dirty members got {}",
                    domain.dirty()
                ));
            }
            if domain.resets != resets {
                return Err(format!("expected {resets} resets got {}", domain.resets));
            }
            Ok(())
        })
    }

    /// How many resets the domain of `device` has had; none, if the driver shows no domains.
    pub fn domain_resets(&self, device: &Device) -> Result<u64> {
        if !self.driver.shows_domains() {
            return Ok(0);
        }
        let domain = debugfs::domain_of(&self.driver.module(), device)?;
        Ok(domain.map_or(0, |domain| domain.resets))
    }

    /// Asserts the state of one function in its domain.
    pub fn state(&self, t: &mut Test, device: &Device, when: &str, expected: &str) -> Result<()> {
        self.domain(t, device, &format!("{expected} {when}"), |domain| {
            let got = domain
                .member(device)
                .map_or("absent", |member| &member.state);
            if got == expected {
                Ok(())
            } else {
                Err(format!("expected {expected} got {got}"))
            }
        })
    }

    /// Brings the machine back to where a scenario can begin, whatever the last one left behind:
    /// functions released, ports with their driver, no virtual functions, modules removed.
    pub fn restore(&self) -> Result<()> {
        if driver::references(helper::MODULE)?.is_some() {
            driver::rmmod(helper::MODULE)?;
        }
        for function in sysfs::all_functions()? {
            match function.driver() {
                Some(name)
                    if [self.driver.name(), STUB, driver::REPLACED].contains(&name.as_str()) =>
                {
                    function.release()?;
                }
                _ => {}
            }
        }
        if let Ok(pf) = self.topology.device(PF) {
            if pf.driver().as_deref() == Some(sriov::PF_STUB) || pf.read("sriov_numvfs")? != "0" {
                VirtualFunctions::disable(&pf)?;
            }
        }
        if let Ok(port) = self.topology.device(PORT) {
            give_port_back(&port)?;
        }
        self.driver.unload()
    }
}

impl<'a> Bound<'a> {
    /// Binds all of `devices` to the driver of this name.
    pub fn bind(driver: &str, devices: impl IntoIterator<Item = &'a Device>) -> Result<Self> {
        let mut bound = Bound(Vec::new());
        for device in devices {
            bound.0.push(device);
            device.bind(driver)?;
        }
        Ok(bound)
    }

    /// Unbinds the functions; unlike dropping, this reports an error.
    pub fn release(mut self) -> Result<()> {
        for device in std::mem::take(&mut self.0) {
            device.release()?;
        }
        Ok(())
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        for device in &self.0 {
            if let Err(e) = device.release() {
                eprintln!("{device} was not released: {e}");
            }
        }
    }
}

/// Gives a port back to the driver that it has at boot.
pub fn give_port_back(port: &Bdf) -> Result<()> {
    if port.driver().as_deref() != Some(PORT_DRIVER) {
        port.reprobe()?;
    }
    Ok(())
}
