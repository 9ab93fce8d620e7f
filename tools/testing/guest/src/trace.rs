// SPDX-License-Identifier: GPL-2.0

//! Exact counts of PCI resets, from the kernel's function tracer.
//!
//! Three functions are traced, each with its call chain:
//!
//! - `pcie_flr`: a function level reset;
//! - `pci_bridge_secondary_bus_reset`: everything below a bridge is reset;
//! - `pciehp_reset_slot`: calls the former to reset a slot, and is also called, without any
//!   effect, to find out whether a slot can be reset at all. A slot reset is therefore counted as
//!   a secondary bus reset that it called.
//!
//! The chain also tells who asked: a release, an open, or a user's ioctl on an open device.

use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Doing;
use crate::events;
use crate::events::Event;
use crate::sysfs::write_attribute;
use crate::Error;
use crate::Result;

const TRACEFS: &str = "/sys/kernel/tracing";

/// A function level reset.
pub const FLR: &str = "pcie_flr";

/// A reset of everything below a bridge.
pub const BUS_RESET: &str = "pci_bridge_secondary_bus_reset";
const SLOT_RESET: &str = "pciehp_reset_slot";
const RESETS: [&str; 3] = [FLR, BUS_RESET, SLOT_RESET];
const RELEASE: &str = "vfio_device_fops_release";
const DEVICE_IOCTL: &str = "vfio_device_fops_unl_ioctl";

/// The running tracer; dropping it stops it.
#[derive(Debug)]
pub struct Tracer(());

/// One call of a traced function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub function: String,
    /// The function that called it.
    pub caller: String,
    /// Name and thread ID of the task that made the call, as the tracer prints them.
    pub task: String,
    /// Functions of the call chain, innermost first.
    pub chain: Vec<String>,
}

/// The calls between two points in time.
#[derive(Debug, Clone, Default)]
pub struct Calls(Vec<Call>);

/// How many resets of each kind there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Function level resets.
    pub flr: usize,
    /// Secondary bus resets that were not slot resets.
    pub bus: usize,
    /// Slot resets.
    pub slot: usize,
}

impl Tracer {
    /// Mounts tracefs if nobody has, and starts tracing resets with their call chains.
    pub fn start() -> Result<Self> {
        Self::trace(&RESETS, true)
    }

    /// The same without the chains, which take time: resets can be counted, and nothing said of who
    /// asked for them.
    pub fn start_counting() -> Result<Self> {
        Self::trace(&RESETS, false)
    }

    /// The same, but traces `functions`, all of which the kernel must have, or the modules that are
    /// loaded.
    pub fn start_on(functions: &[&str]) -> Result<Self> {
        Self::trace(functions, false)
    }

    fn trace(functions: &[&str], chains: bool) -> Result<Self> {
        if !Path::new(TRACEFS).join("current_tracer").exists() {
            nix::mount::mount(
                Some("tracefs"),
                TRACEFS,
                Some("tracefs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            )
            .map_err(|e| Error::io(format!("mounting tracefs on {TRACEFS}"), e.into()))?;
        }
        set("tracing_on", "0")?;
        set("current_tracer", "nop")?;
        // The filter comes before the stack option: a stack for every function of the kernel
        // would bring the machine to a halt.
        set("set_ftrace_filter", &functions.join(" "))?;
        // The clock that programs can read.
        set("trace_clock", "mono")?;
        let tracer = Tracer(());
        set("current_tracer", "function")?;
        if chains {
            set("options/func_stack_trace", "1")?;
        }
        set("trace", "")?;
        set("tracing_on", "1")?;
        Ok(tracer)
    }

    /// Forgets all calls made until now.
    pub fn mark(&self) -> Result<()> {
        set("trace", "")
    }

    /// Traces all tracepoints of `system` too, if the kernel has any of that name; says whether.
    pub fn trace_points(&self, system: &str) -> Result<bool> {
        let name = format!("events/{system}/enable");
        if !file(&name).exists() {
            return Ok(false);
        }
        set(&name, "1")?;
        Ok(true)
    }

    /// The calls since the last mark.
    pub fn calls(&self) -> Result<Calls> {
        Calls::parse(&read()?)
    }

    /// The calls since the last mark, and what tracepoints told, with who did it when.
    pub fn events(&self) -> Result<Vec<Event>> {
        let text = read()?;
        complete(&text)?;
        events::parse(&text)
    }

    /// Counts what happens while `work` runs.
    pub fn count<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Calls)> {
        self.mark()?;
        let value = work()?;
        Ok((value, self.calls()?))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The stack option goes first, for the same reason that it came last.
        for (name, value) in [
            ("tracing_on", "0"),
            ("options/func_stack_trace", "0"),
            ("current_tracer", "nop"),
            ("set_ftrace_filter", " "),
            ("set_event", ""),
            ("trace_clock", "local"),
        ] {
            if let Err(e) = set(name, value) {
                eprintln!("the function tracer was not put back: {e}");
            }
        }
    }
}

impl Calls {
    /// Parses the tracer's `trace` file.
    fn parse(text: &str) -> Result<Self> {
        complete(text)?;
        let mut calls: Vec<Call> = Vec::new();
        // Index of the call that the `=>` lines being read belong to. Events of two CPUs are
        // merged by time, so a stack follows its call only among the lines of the same task.
        let mut current = None;
        for line in text.lines() {
            if let Some(symbol) = line.strip_prefix(" => ") {
                if let Some(call) = current.and_then(|i: usize| calls.get_mut(i)) {
                    let name = symbol.split([' ', '+']).next().unwrap_or(symbol);
                    call.chain.push(name.to_owned());
                }
            } else if line.starts_with('#') {
            } else if let Some((head, event)) = line.split_once(": ") {
                let task = head.split(" [").next().unwrap_or(head).trim().to_owned();
                if event.trim() == "<stack trace>" {
                    current = calls
                        .iter()
                        .rposition(|c| c.task == task && c.chain.is_empty());
                } else if let Some((function, caller)) = event.split_once(" <-") {
                    calls.push(Call {
                        function: function.trim().to_owned(),
                        caller: caller.trim().to_owned(),
                        task,
                        chain: Vec::new(),
                    });
                    current = None;
                }
            }
        }
        Ok(Calls(calls))
    }

    /// How many resets of each kind there were.
    pub fn counts(&self) -> Counts {
        let slot = self.0.iter().filter(|c| c.is_slot_reset()).count();
        Counts {
            flr: self.0.iter().filter(|c| c.function == FLR).count(),
            bus: self.bus_or_slot() - slot,
            slot,
        }
    }

    /// How many resets there were that hit more than one function.
    pub fn bus_or_slot(&self) -> usize {
        self.0.iter().filter(|c| c.function == BUS_RESET).count()
    }

    /// The resets that were made in the course of a device's release.
    pub fn at_release(&self) -> Calls {
        self.by(|c| c.chain_has(RELEASE))
    }

    /// The resets that a user asked for on a device that it had open (`VFIO_DEVICE_RESET`,
    /// `VFIO_DEVICE_PCI_HOT_RESET`).
    pub fn asked_by_user(&self) -> Calls {
        self.by(|c| c.chain_has(DEVICE_IOCTL))
    }

    /// The resets that nobody who had a device open asked for: the driver made them itself.
    pub fn by_driver(&self) -> Calls {
        self.by(|c| !c.chain_has(DEVICE_IOCTL))
    }

    fn by(&self, keep: impl Fn(&Call) -> bool) -> Calls {
        Calls(self.0.iter().filter(|c| keep(c)).cloned().collect())
    }
}

impl Call {
    fn chain_has(&self, function: &str) -> bool {
        self.chain.iter().any(|f| f == function)
    }

    fn is_slot_reset(&self) -> bool {
        self.function == BUS_RESET && self.caller == SLOT_RESET
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} FLR, {} bus, {} slot", self.flr, self.bus, self.slot)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, call) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            let chain = call.chain.join(" < ");
            write!(f, "{separator}{} by {} ({chain})", call.function, call.task)?;
        }
        Ok(())
    }
}

/// What is in the buffer.
fn read() -> Result<String> {
    let path = file("trace");
    fs::read_to_string(&path).doing(format!("reading {}", path.display()))
}

/// An error if something is missing in the tracer's `trace` file that was traced.
pub(crate) fn complete(text: &str) -> Result<()> {
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# entries-in-buffer/entries-written: ") {
            let lost = rest
                .split_whitespace()
                .next()
                .and_then(|pair| pair.split_once('/'))
                .is_some_and(|(kept, written)| kept != written);
            if lost {
                return Err(Error::new(format!(
                    "the trace buffer overran ({}): counts would be wrong",
                    rest.trim_end()
                )));
            }
        } else if line.starts_with("CPU:") && line.ends_with("LOST EVENTS]") {
            return Err(Error::new(format!("counts would be wrong: {line}")));
        }
    }
    Ok(())
}

fn file(name: &str) -> PathBuf {
    Path::new(TRACEFS).join(name)
}

fn set(name: &str, value: &str) -> Result<()> {
    if value.is_empty() {
        // Truncation by open(2) is what clears the buffer.
        let path = file(name);
        return fs::File::create(&path)
            .map(drop)
            .doing(format!("truncating {}", path.display()));
    }
    if name == "set_ftrace_filter" {
        // Without truncation a write adds to the filter.
        let path = file(name);
        let doing = format!("writing '{value}' to {}", path.display());
        return fs::write(&path, value).doing(doing);
    }
    write_attribute(&file(name), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: function
#
# entries-in-buffer/entries-written: 8/8   #P:2
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
           <...>-101     [000] .....    10.000001: pcie_flr <-pcie_reset_flr
       scenarios-102     [001] .....    10.000002: pcie_flr <-pcie_reset_flr
           <...>-101     [000] .....    10.000003: <stack trace>
 => pcie_flr
 => vfio_pci_core_disable
 => vfio_device_fops_release
       scenarios-102     [001] .....    10.000004: <stack trace>
 => pcie_flr
 => vfio_pci_core_enable
       scenarios-102     [001] .....    11.000002: pciehp_reset_slot <-pci_reset_hotplug_slot
       scenarios-102     [001] .....    11.000003: pciehp_reset_slot <-pci_reset_hotplug_slot
       scenarios-102     [001] .....    11.0: pci_bridge_secondary_bus_reset <-pciehp_reset_slot
 qemu-system-x86-200     [001] .....    12.0: pci_bridge_secondary_bus_reset <-pci_bus_reset
 qemu-system-x86-200     [001] .....    12.0: <stack trace>
 => pci_bridge_secondary_bus_reset
 => vfio_device_fops_unl_ioctl
";

    #[test]
    fn counts_by_kind() {
        let calls = Calls::parse(TRACE).expect("a valid trace");
        assert_eq!(
            calls.counts(),
            Counts {
                flr: 2,
                bus: 1,
                slot: 1
            }
        );
        assert_eq!(calls.bus_or_slot(), 2);
    }

    #[test]
    fn stacks_go_to_their_own_task() {
        let calls = Calls::parse(TRACE).expect("a valid trace");
        assert_eq!(
            calls.at_release().counts(),
            Counts {
                flr: 1,
                bus: 0,
                slot: 0
            }
        );
        assert_eq!(calls.at_release().0[0].task, "<...>-101");
        assert_eq!(
            calls.asked_by_user().counts(),
            Counts {
                flr: 0,
                bus: 1,
                slot: 0
            }
        );
        assert_eq!(
            calls.by_driver().counts(),
            Counts {
                flr: 2,
                bus: 0,
                slot: 1
            }
        );
    }

    #[test]
    fn an_overrun_is_an_error() {
        assert!(Calls::parse("# entries-in-buffer/entries-written: 7/9   #P:2\n").is_err());
        assert!(Calls::parse("CPU:0 [LOST 3 EVENTS]\nCPU:1 [LOST EVENTS]\n").is_err());
    }
}
