// SPDX-License-Identifier: GPL-2.0

//! Addresses of PCI functions, and the scopes of their resets. Plain data.

use kernel::{
    fmt,
    prelude::fmt, //
};

/// Address of a PCI function, shown as `0000:01:00.0`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// Called domain in `lspci` and sysfs.
    pub(crate) segment: u32,
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

/// The functions that the widest reset of a function affects.
///
/// Two functions have equal scopes if and only if a slot or bus reset of one resets the other,
/// except for functions below further bridges. A bus number is unique within its segment as long as
/// there is a function on that bus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResetScope {
    /// The functions in a slot whose hotplug driver can reset it, shown as `slot 0000:01:00`.
    Slot {
        segment: u32,
        bus: u8,
        /// Number of the slot on its bus: 0 if the slot takes all devices there, as in sysfs.
        number: u16,
    },
    /// The functions on a bus below a bridge, shown as `bus 0000:01`.
    Bus { segment: u32, bus: u8 },
    /// Only the function itself, shown as `private 0000:01:10.0`.
    ///
    /// No slot or bus reset applies to an SR-IOV VF, nor to a function on a root bus that is not in
    /// such a slot.
    Private(Address),
}

impl ResetScope {
    /// Returns `slot`, `bus` or `private`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Slot { .. } => "slot",
            Self::Bus { .. } => "bus",
            Self::Private(_) => "private",
        }
    }

    pub(crate) fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
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
