// SPDX-License-Identifier: GPL-2.0

//! The scenarios: each starts with a freshly loaded module and restores the machine's state.
//!
//! They need more than an open function: a QEMU, KVM, the helper module, injected errors, VFs, or
//! several drivers. The life cycle of functions is in the selftest `vfio_pci_rs_test`; IDs, and
//! functions that a driver does not take, are in the differential test.

use std::fmt::Debug;

use anyhow::Result;
use lab::machine::Lab;
use lab::report::{Report, Test};

mod attributes;
mod bridge;
mod clean;
mod cleaning;
mod errors;
mod failed_reset;
mod gone;
mod hot_reset;
mod kinds;
mod kvm;
mod locked;
mod names;
mod oracle;
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
    run: Run,
}

/// All scenarios, in the order in which they run.
pub const ALL: &[Scenario] = &[
    alone("failed_bus_reset", failed_reset::run),
    alone("gone", gone::run),
    alone("domain_kinds", kinds::run),
    compared("qemu_hot_reset", hot_reset::run),
    alone("names", names::run),
    compared("errors", errors::run),
    compared("kvm", kvm::run),
    compared("locked_at_open", locked::run),
    compared("bridge_lock", bridge::locked),
    alone("unbound_while_open", bridge::unbound_while_open),
    alone("closed_together", bridge::closed_together),
    alone("tracepoints", tracing::run),
    alone("known_clean", clean::run),
    alone("known_clean_tricks", clean::tricks),
    alone("oracle", oracle::run),
    alone("attributes", attributes::run),
    alone("strict", strict::run),
    alone("system_sleep", sleep::run),
    alone("closed_while_cleaning", cleaning::run),
    compared("dma_after_close", cleaning::dma),
];

const fn compared(name: &'static str, run: Run) -> Scenario {
    Scenario {
        name,
        compared: true,
        run,
    }
}

const fn alone(name: &'static str, run: Run) -> Scenario {
    Scenario {
        compared: false,
        ..compared(name, run)
    }
}

impl Scenario {
    /// Runs the scenario, and restores the machine's initial state whatever its result.
    pub fn run(&self, lab: &Lab, report: &mut Report) {
        report.run(self.name, self.compared, |t| {
            t.complete("runs to its end", |t| (self.run)(lab, t));
            t.done("the machine is restored", lab.restore());
            Ok(())
        });
    }
}

/// Returns the name of the errno of an error, for an observation.
fn errno<T: Debug>(result: &Result<T>) -> String {
    match result.as_ref().err().and_then(lab::errno) {
        Some(errno) => format!("{errno:?}"),
        None => format!("none: {result:?}"),
    }
}
