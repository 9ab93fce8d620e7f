// SPDX-License-Identifier: GPL-2.0

//! The scenarios: each starts with a freshly loaded module and restores the machine's state.
//!
//! They need more than an open function: a QEMU, KVM, the helper module, injected errors, VFs, or
//! several drivers. The life cycle of functions is in the selftest `vfio_pci_rs_test`; IDs, and
//! functions that a driver does not take, are in the differential test.

use std::fmt::Debug;

use anyhow::Result;
use lab::driver;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::{Report, Test};

mod attributes;
mod bridge;
mod clean;
mod cleaning;
mod errors;
mod failed_reset;
mod framebuffer;
mod gone;
mod hot_reset;
mod kinds;
mod kvm;
mod names;
mod nvme;
mod oracle;
mod owners;
mod removal;
mod root_resets;
mod sleep;
mod strict;
mod tracing;

pub use bridge::lost_together;
pub use oracle::leave_beside_stranger;

type Run = fn(&Lab, &mut Test<'_>) -> Result<()>;

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// Whether all vfio-pci drivers must agree in their observations.
    pub compared: bool,
    /// Why vfio-pci cannot run it, if so.
    ours: Option<&'static str>,
    run: Run,
}

/// All scenarios, in the order in which they run.
pub const ALL: &[Scenario] = &[
    alone("failed_bus_reset", failed_reset::run),
    ours("gone", gone::run, "vfio-pci waits a minute at the close"),
    alone("domain_kinds", kinds::run),
    compared("qemu_hot_reset", hot_reset::run),
    alone("names", names::run),
    compared("errors", errors::run),
    alone("framebuffer", framebuffer::run),
    compared("kvm", kvm::run),
    compared("bridge_lock", bridge::locked),
    ours("unbound_while_open", bridge::unbound_while_open, "vfio-pci does not reset it"),
    alone("closed_together", bridge::closed_together),
    ours("tracepoints", tracing::run, "vfio-pci has none"),
    ours("known_clean", clean::run, "vfio-pci resets all"),
    ours("known_clean_tricks", clean::tricks, "vfio-pci resets all"),
    alone("oracle", oracle::run),
    ours("attributes", attributes::run, "vfio-pci has none"),
    ours("strict", strict::run, "vfio-pci opens dirty functions"),
    ours("system_sleep", sleep::run, "vfio-pci has no clean functions"),
    alone("closed_while_cleaning", cleaning::run),
    compared("dma_after_close", cleaning::dma),
    alone("owners", owners::run),
    alone("nvme_shutdown", nvme::run),
    alone("removal", removal::run),
    alone("root_resets", root_resets::run),
];

const fn compared(name: &'static str, run: Run) -> Scenario {
    Scenario { name, compared: true, ours: None, run }
}

const fn alone(name: &'static str, run: Run) -> Scenario {
    Scenario { compared: false, ..compared(name, run) }
}

const fn ours(name: &'static str, run: Run, why: &'static str) -> Scenario {
    Scenario { ours: Some(why), ..alone(name, run) }
}

impl Scenario {
    /// Runs the scenario, after which nothing may use the driver. Restores the machine's initial
    /// state whatever its result.
    pub fn run(&self, lab: &Lab, report: &mut Report) {
        report.run(self.name, self.compared, |t| {
            match self.ours.filter(|_| !lab.driver.shows_domains()) {
                Some(why) => t.skip("the scenario", why),
                None => t.complete("runs to its end", |t| {
                    (self.run)(lab, t)?;
                    lab.unreferenced(t)
                }),
            }
            t.done("the machine is restored", lab.restore());
            Ok(())
        });
    }
}

/// Does `work` while a module of the kernel is loaded, or skips it if there is none.
fn with_module(
    t: &mut Test<'_>,
    what: &str,
    module: &str,
    work: impl FnOnce(&mut Test<'_>) -> Result<()>,
) -> Result<()> {
    if let Err(e) = driver::modinfo(module, "filename") {
        t.skip(what, format!("{e:#}"));
        return Ok(());
    }
    driver::modprobe(module, &[])?;
    let done = work(t);
    driver::rmmod(module)?;
    done
}

/// Checks that one log line since `mark` has all `parts`.
fn one_line(t: &mut Test<'_>, mark: &mut Mark, parts: &[&str]) -> Result<()> {
    let what = format!("log lines with '{}'", parts.join(", "));
    t.eq(what, 1, mark.lines_with(parts)?.len());
    Ok(())
}

/// Returns the name of the errno of an error, for an observation.
fn errno<T: Debug>(result: &Result<T>) -> String {
    match result.as_ref().err().and_then(lab::errno) {
        Some(errno) => format!("{errno:?}"),
        None => format!("none: {result:?}"),
    }
}
