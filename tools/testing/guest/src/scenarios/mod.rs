// SPDX-License-Identifier: GPL-2.0

//! The scenarios: what a vfio-pci driver has to do, each on a freshly loaded module and each
//! leaving the machine as it found it.

use std::fmt::Debug;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use nix::errno::Errno;

use crate::ktap::Report;
use crate::ktap::Test;
use crate::lab::Lab;
use crate::Error;
use crate::Result;

mod bus_reset;
mod captured;
mod drop_in;
mod dynamic_ids;
mod errors;
mod hot_reset;
mod killed;
mod kinds;
mod kvm;
mod life_cycle;
mod locked;
mod parallel;
mod probe;
mod tracing;
mod vga;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its number, by which it is chosen and by which its observations are known.
    pub number: u32,
    /// What it is about, in one word.
    pub name: &'static str,
    /// Whether every vfio-pci driver has to come to the same observations.
    pub compared: bool,
    run: fn(&Lab, &mut Test) -> Result<()>,
}

/// All scenarios, in the order of their numbers.
pub const ALL: &[Scenario] = &[
    Scenario {
        number: 1,
        name: "rebind",
        compared: true,
        run: life_cycle::rebind,
    },
    Scenario {
        number: 2,
        name: "probe",
        compared: true,
        run: probe::run,
    },
    Scenario {
        number: 3,
        name: "power_states",
        compared: true,
        run: life_cycle::power_states,
    },
    Scenario {
        number: 4,
        name: "last_release",
        compared: true,
        run: bus_reset::last_release,
    },
    Scenario {
        number: 5,
        name: "foreign_function",
        compared: true,
        run: bus_reset::foreign,
    },
    Scenario {
        number: 6,
        name: "failed_bus_reset",
        compared: false,
        run: bus_reset::failed,
    },
    Scenario {
        number: 7,
        name: "domain_kinds",
        compared: false,
        run: kinds::run,
    },
    Scenario {
        number: 8,
        name: "opened_twice",
        compared: true,
        run: life_cycle::opened_twice,
    },
    Scenario {
        number: 9,
        name: "unbind_while_open",
        compared: true,
        run: life_cycle::unbind_open,
    },
    Scenario {
        number: 10,
        name: "parallel",
        compared: false,
        run: parallel::run,
    },
    Scenario {
        number: 11,
        name: "killed_qemu",
        compared: false,
        run: killed::run,
    },
    Scenario {
        number: 12,
        name: "captured_vfs",
        compared: true,
        run: captured::run,
    },
    Scenario {
        number: 13,
        name: "qemu_hot_reset",
        compared: true,
        run: hot_reset::run,
    },
    Scenario {
        number: 14,
        name: "drop_in_name",
        compared: false,
        run: drop_in::run,
    },
    Scenario {
        number: 15,
        name: "dynamic_ids",
        compared: true,
        run: dynamic_ids::run,
    },
    Scenario {
        number: 16,
        name: "errors",
        compared: true,
        run: errors::run,
    },
    Scenario {
        number: 17,
        name: "kvm",
        compared: true,
        run: kvm::run,
    },
    Scenario {
        number: 18,
        name: "locked_at_open",
        compared: true,
        run: locked::run,
    },
    Scenario {
        number: 19,
        name: "vga",
        compared: true,
        run: vga::run,
    },
    Scenario {
        number: 20,
        name: "tracepoints",
        compared: false,
        run: tracing::run,
    },
];

impl Scenario {
    /// Runs the scenario and records its result. Neither an error nor a panic in it keeps the
    /// next one from running; the machine is brought back to its initial state in any case.
    pub fn record(&self, lab: &Lab, report: &mut Report) -> Result<()> {
        println!("# scenario {} {}", self.number, self.name);
        let start = Instant::now();
        let mut test = Test::default();
        match catch_unwind(AssertUnwindSafe(|| (self.run)(lab, &mut test))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => test.fail(e),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                test.fail(format!("panicked: {}", text.unwrap_or("with no message")));
            }
        }
        if test.is_empty() {
            test.fail("nothing was asserted");
        }
        test.done("the machine is back in its initial state", lab.restore());
        println!(
            "# scenario {} took {:.1} s",
            self.number,
            start.elapsed().as_secs_f64()
        );
        report.finish(self.name, self.number, test, self.compared)
    }
}

/// The name of the errno that an operation ended with, or that there was none.
fn errno<T: Debug>(result: &Result<T>) -> String {
    match result.as_ref().err().and_then(Error::errno) {
        Some(errno) => format!("{:?}", Errno::from_raw(errno)),
        None => format!("none: {result:?}"),
    }
}
