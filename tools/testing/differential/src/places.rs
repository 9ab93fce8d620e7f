// SPDX-License-Identifier: GPL-2.0

//! The functions that are compared, by their roles in the topologies `differential` and `noiommu`.
//!
//! Each place has a bus and IOMMU groups of its own, so that places do not disturb each other.

use crate::call::At;

/// Registers or memory that keep a value without side effects. A reset clears them, which makes
/// them a marker: after a call they show whether the function was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    pub at: At,
    pub length: usize,
}

#[derive(Debug)]
pub struct Place {
    pub name: &'static str,
    /// The function under test, and its sibling if the place has one.
    pub roles: &'static [&'static str],
    pub scratch: Scratch,
}

/// The physical function of the place `vf`.
pub const PF: &str = "pf";

/// The place of the virtual function.
pub const VF: &str = "vf";

/// The place without an IOMMU, which another topology has.
pub const NO_IOMMU: &str = "noiommu";

const fn place(
    name: &'static str,
    roles: &'static [&'static str],
    region: u32,
    offset: u64,
    length: usize,
) -> Place {
    Place { name, roles, scratch: Scratch { at: At { region, offset }, length } }
}

/// All places, the slowest first.
pub const ALL: &[Place] = &[
    // Two functions with FLR, each in an IOMMU group of its own. Scratch: the multicast table.
    place("igb", &["igb.a", "igb.b"], 0, 0x5200, 16),
    // A slot with two functions of one IOMMU group, which only the reset of the slot can clean.
    // Scratch: the address of a disabled queue.
    place("slot", &["slot.a", "slot.b"], 4, 0x20, 4),
    // A function with a reset of its own by D3hot.
    place("pm", &["pm"], 4, 0x20, 4),
    // A function that no bus reset reaches. Scratch: the memory of the mailbox.
    place(VF, &["vf.0"], 0, 0x800, 16),
    // The root bus, which cannot be reset.
    place("root", &["root"], 4, 0x20, 4),
    // A display. Scratch: the picture, which no reset clears.
    place("vga", &["vga"], 0, 0x10_0000, 16),
    // A conventional function without power management. Scratch: returns the complement, also
    // after a reset.
    place("edu", &["edu"], 0, 0x4, 4),
    // A bus, in the topology `noiommu`.
    place(NO_IOMMU, &["qemu.a", "qemu.b"], 4, 0x20, 4),
];
