// SPDX-License-Identifier: GPL-2.0

//! The devices that are compared, by their roles in the topology `differential`: where writing to a
//! BAR does no harm, and what changes by itself.

/// Part of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The region.
    pub region: u32,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// A device.
#[derive(Debug)]
pub struct Profile {
    /// Its role.
    pub role: &'static str,
    /// Registers and memory that keep what is written, without any consequence: nothing moves, no
    /// interrupt is raised, no memory of the machine is accessed.
    pub scratch: &'static [Part],
    /// Registers that change by themselves, with the time, or that no reset reaches: what they have is
    /// not compared.
    pub live: &'static [Part],
}

/// The role of the physical function that the virtual function is made of.
pub const PF: &str = "vf.pf";

/// The role of the virtual function.
pub const VF: &str = "vf.0";

const fn part(region: u32, offset: u64, length: u64) -> Part {
    Part {
        region,
        offset,
        length,
    }
}

/// All of them, those first that take the longest.
pub const ALL: &[Profile] = &[
    Profile {
        role: "igb",
        // The multicast table.
        scratch: &[part(0, 0x5200, 0x80)],
        live: &[],
    },
    Profile {
        role: "e1000e",
        // The multicast table.
        scratch: &[part(0, 0x5200, 0x80)],
        live: &[],
    },
    Profile {
        role: "nvme",
        // The attributes and addresses of the admin queues, while the controller is off.
        scratch: &[part(0, 0x24, 0x14)],
        live: &[],
    },
    Profile {
        role: "virtio.flr",
        // Which half of the driver's features can be seen.
        scratch: &[part(4, 0x8, 4)],
        live: &[],
    },
    Profile {
        role: "virtio.noflr",
        scratch: &[part(4, 0x8, 4)],
        live: &[],
    },
    Profile {
        role: VF,
        // The memory of the mailbox.
        scratch: &[part(0, 0x800, 0x40)],
        live: &[],
    },
    Profile {
        role: "xhci",
        // The address of the device contexts, while the controller is stopped.
        scratch: &[part(0, 0x70, 8)],
        // The index of the microframe.
        live: &[part(0, 0x1000, 4)],
    },
    Profile {
        role: "vga",
        // The picture.
        scratch: &[part(0, 0x10_0000, 0x1000), part(0, 0xff_f000, 0x1000)],
        // No reset of the device reaches what the display's ports go by: the attributes' flip-flop, the
        // next byte of the palette, which each read moves on; and input status 1 says where the beam
        // is. They are registers, and ports.
        live: &[
            part(2, 0x400, 1),
            part(2, 0x409, 1),
            part(2, 0x41a, 1),
            part(8, 0x3ba, 1),
            part(8, 0x3c0, 1),
            part(8, 0x3c9, 1),
            part(8, 0x3da, 1),
        ],
    },
    Profile {
        role: "edu",
        // Gives back the complement of what is written.
        scratch: &[part(0, 0x4, 4)],
        live: &[],
    },
    Profile {
        role: "ivshmem",
        // All of the shared memory.
        scratch: &[part(2, 0, 0x1000), part(2, 0xf_f000, 0x1000)],
        live: &[],
    },
];

impl Profile {
    /// Whether a byte of a region is live.
    pub fn is_live(&self, region: u32, offset: u64) -> bool {
        self.live.iter().any(|part| {
            part.region == region && (part.offset..part.offset + part.length).contains(&offset)
        })
    }
}
