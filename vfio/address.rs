// SPDX-License-Identifier: GPL-2.0

//! Names of PCI functions, and of what a slot or bus reset of one affects.
//!
//! Plain data without any access to a device.

use kernel::{
    fmt,
    prelude::fmt, //
};

/// Address of a PCI function, shown as `0000:01:00.0`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// Segment, called domain in `lspci` and sysfs.
    pub(crate) segment: u32,
    /// Bus number.
    pub(crate) bus: u8,
    /// Device number in the upper five bits, function number in the lower three.
    pub(crate) devfn: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!(
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment,
            self.bus,
            self.devfn >> 3,
            self.devfn & 7
        ))
    }
}

/// The functions that the widest reset available to a function affects.
///
/// Two functions have equal scopes if and only if a slot or bus reset of one resets the other,
/// functions below further bridges aside. A bus number is unique within its segment for as long as
/// there is a function on that bus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResetScope {
    /// The functions in a slot whose hotplug driver can reset it, shown as `slot 0000:01:00`.
    Slot {
        /// Segment of the bus that the slot is on.
        segment: u32,
        /// The bus that the slot is on.
        bus: u8,
        /// Number of the slot on its bus. It is 0 if the slot takes all devices there, as in sysfs.
        number: u16,
    },
    /// The functions on a bus below a bridge, shown as `bus 0000:01`.
    Bus {
        /// Segment of the bus.
        segment: u32,
        /// Bus number.
        bus: u8,
    },
    /// Only the function itself, as no slot or bus reset can apply: it is on a root bus and not in
    /// such a slot, or it is an SR-IOV VF. Shown as `private 0000:01:10.0`.
    Private(Address),
}

impl ResetScope {
    /// What the scope is called: `slot`, `bus` or `private`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Slot { .. } => "slot",
            Self::Bus { .. } => "bus",
            Self::Private(_) => "private",
        }
    }
}

impl fmt::Display for ResetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();

        match self {
            Self::Slot {
                segment,
                bus,
                number,
            } => f.write_fmt(fmt!("{kind} {segment:04x}:{bus:02x}:{number:02x}")),
            Self::Bus { segment, bus } => f.write_fmt(fmt!("{kind} {segment:04x}:{bus:02x}")),
            Self::Private(address) => f.write_fmt(fmt!("{kind} {address}")),
        }
    }
}
