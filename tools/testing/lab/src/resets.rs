// SPDX-License-Identifier: GPL-2.0

//! The resets among the calls that the function tracer has recorded, by their kinds and causes.
//!
//! The call chain shows the cause: a close, an open, or a user's ioctl on an open device.

use std::fmt;
use std::time::Duration;

use crate::trace::{Event, BEGIN_RESET, BRIDGE_RESET, BUS_RESET, FLR, SLOT_RESET};

const OPEN: &str = "vfio_pci_core_enable";
const RELEASE: &str = "vfio_device_fops_release";
// A compiler may inline process_one_work().
const WORK: &str = "worker_thread";
const DEVICE_IOCTL: &str = "vfio_device_fops_unl_ioctl";

/// The calls between two points in time.
#[derive(Debug, Clone, Default)]
pub struct Calls(pub(crate) Vec<Event>);

/// The number of resets of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub flr: usize,
    /// Secondary bus resets that are not slot resets.
    pub bus: usize,
    pub slot: usize,
}

impl Counts {
    pub const NONE: Counts = Counts::new(0, 0, 0);

    const fn new(flr: usize, bus: usize, slot: usize) -> Self {
        Counts { flr, bus, slot }
    }

    pub const fn flr(count: usize) -> Self {
        Counts::new(count, 0, 0)
    }

    pub const fn bus(count: usize) -> Self {
        Counts::new(0, count, 0)
    }

    pub const fn slot(count: usize) -> Self {
        Counts::new(0, 0, count)
    }
}

impl Calls {
    pub fn counts(&self) -> Counts {
        let count = |name| self.0.iter().filter(|call| call.name == name).count();
        let by_slot = |call: &&Event| call.name == BRIDGE_RESET && call.caller == SLOT_RESET;
        let slot = self.0.iter().filter(by_slot).count();
        // The calls may have been read between the two of a slot reset.
        Counts::new(count(FLR), count(BUS_RESET).saturating_sub(slot), slot)
    }

    /// Returns the time at which the PCI core began the first reset of a slot or bus.
    pub fn bus_reset(&self) -> Option<Duration> {
        let begun = self.0.iter().find(|call| call.name == BEGIN_RESET);
        begun.map(|call| call.time)
    }

    /// Returns the number of resets that hit more than one function.
    pub fn bus_or_slot(&self) -> usize {
        let counts = self.counts();
        counts.bus + counts.slot
    }

    /// Returns the resets from one time of the monotonic clock to another.
    pub fn between(&self, start: Duration, end: Duration) -> Calls {
        self.filter(|call| (start..end).contains(&call.time))
    }

    pub fn at_open(&self) -> Calls {
        self.filter(|call| call.chain_has(OPEN))
    }

    /// Returns the resets but for those during a device's open.
    pub fn not_at_open(&self) -> Calls {
        self.filter(|call| !call.chain_has(OPEN))
    }

    /// Returns the resets by work of the driver, for which no call of a user waits.
    pub fn in_background(&self) -> Calls {
        self.filter(|call| call.chain_has(WORK))
    }

    pub fn at_release(&self) -> Calls {
        self.filter(|call| call.chain_has(RELEASE))
    }

    /// Returns the resets that the user of an open device requested (`VFIO_DEVICE_RESET`,
    /// `VFIO_DEVICE_PCI_HOT_RESET`).
    pub fn asked_by_user(&self) -> Calls {
        // Binding a device to an iommufd, which opens it, is an ioctl, too.
        self.filter(|call| call.chain_has(DEVICE_IOCTL) && !call.chain_has(OPEN))
    }

    fn filter(&self, keep: impl Fn(&Event) -> bool) -> Calls {
        Calls(self.0.iter().filter(|c| keep(c)).cloned().collect())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} FLR {} bus {} slot", self.flr, self.bus, self.slot)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for call in &self.0 {
            let Event { name, task, .. } = call;
            writeln!(f, "{name} by {task} ({})", call.chain.join(" < "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::parse;

    const TRACE: &str = "\
# tracer: function
#
# entries-in-buffer/entries-written: 14/14   #P:2
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
           <...>-101     [000] .....    10.000001: pcie_flr <-pcie_reset_flr
      a-b [c] d-102     [001] .....    10.000002: pcie_flr <-pcie_reset_flr
           <...>-101     [000] .....    10.000003: <stack trace>
 => pcie_flr
 => vfio_pci_core_disable
 => vfio_device_fops_release
      a-b [c] d-102     [001] .....    10.000004: <stack trace>
 => pcie_flr
 => vfio_pci_core_enable
       scenarios-103     [001] .....    11.000001: pci_reset_bus <-vfio_pci_core_reset_devices
       scenarios-103     [001] .....    11.000002: pciehp_reset_slot <-pci_reset_hotplug_slot
       scenarios-103     [001] .....    11.000003: pciehp_reset_slot <-pci_reset_hotplug_slot
       scenarios-103     [001] .....    11.0: pci_bridge_secondary_bus_reset <-pciehp_reset_slot
  scenarios-103 [001] ... 11.0: pcibios_reset_secondary_bus <-pci_bridge_secondary_bus_reset
 qemu-system-x86-200     [001] .....    12.0: pcibios_reset_secondary_bus <-pci_bus_reset
 qemu-system-x86-200     [001] .....    12.0: <stack trace>
 => pcibios_reset_secondary_bus
 => vfio_device_fops_unl_ioctl
 qemu-system-x86-200     [001] .....    13.0: pcie_flr <-pcie_reset_flr
 qemu-system-x86-200     [001] .....    13.0: <stack trace>
 => pcie_flr
 => vfio_pci_core_enable
 => vfio_device_fops_unl_ioctl
   kworker/u8:1-33       [000] .....    13.5: pcie_flr <-pcie_reset_flr
   kworker/u8:1-33       [000] .....    13.5: <stack trace>
 => pcie_flr
 => process_one_work
 => worker_thread
";

    #[test]
    fn counts_by_kind_and_cause() {
        let calls = Calls(parse(TRACE).expect("a valid trace"));
        assert_eq!(calls.counts(), Counts::new(4, 1, 1));
        assert_eq!(calls.bus_or_slot(), 2);
        assert_eq!(calls.bus_reset(), Some(Duration::from_micros(11_000_001)));
        assert_eq!(calls.at_release().counts(), Counts::flr(1));
        assert_eq!(calls.at_release().0[0].task, "<...>-101");
        assert_eq!(calls.asked_by_user().counts(), Counts::bus(1));
        // One is by a group, one by an iommufd.
        assert_eq!(calls.at_open().counts(), Counts::flr(2));
        assert_eq!(calls.in_background().counts(), Counts::flr(1));
        let [from, to] = [11, 13].map(Duration::from_secs);
        assert_eq!(calls.between(from, to).counts(), Counts::new(0, 1, 1));
        assert_eq!(calls.0[1].time, Duration::from_micros(10_000_002));
    }
}
