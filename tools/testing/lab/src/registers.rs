// SPDX-License-Identifier: GPL-2.0

//! Registers that show the next user of a function what the last one left: a reset clears them, and
//! D3hot, close and open do not.

use std::fmt;

use anyhow::Result;

use crate::sysfs::Bdf;

/// Any value of a register that is an address.
pub const LEFT: u32 = 0x0125_4000;

/// The registers of a kind of device, of 32 bits.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its number, which is also that of vfio's region.
    pub bar: u32,
    /// A place, and bits there with a value that a function that answers has.
    answer: (u64, u32, u32),
    /// A register that is 0 after a reset and keeps any address that is written to it.
    pub register: u64,
}

/// Virtio's common configuration: the vector of changes, and the address of the descriptors.
pub const VIRTIO: Kind = Kind { bar: 4, answer: (0x10, u32::MAX, 0xffff), register: 0x20 };

/// STATUS, and TDBAL of the first queue.
pub const IGB: Kind = Kind { bar: 0, answer: (0x08, 0xff00_0000, 0x8000_0000), register: 0xe000 };

/// The content of the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Value(u32),
    /// The function does not answer; this is read instead.
    NoAnswer(u32),
}

impl Content {
    pub const ZERO: Self = Content::Value(0);
    pub const LEFT: Self = Content::Value(LEFT);
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            &Content::ZERO => f.write_str("0"),
            &Content::LEFT => f.write_str("left"),
            Content::Value(value) => write!(f, "{value:#x}"),
            Content::NoAnswer(value) => write!(f, "no answer but {value:#x}"),
        }
    }
}

impl Kind {
    pub fn of(function: &Bdf) -> Result<Self> {
        let (vendor, _) = function.id()?;
        Ok(if vendor == "8086" { IGB } else { VIRTIO })
    }

    /// Returns the content of the register. `read` reads 32 bits of the BAR.
    pub fn content(self, read: impl Fn(u64) -> Result<u32>) -> Result<Content> {
        let (at, mask, expected) = self.answer;
        let answer = read(at)?;
        Ok(match answer & mask == expected {
            true => Content::Value(read(self.register)?),
            false => Content::NoAnswer(answer),
        })
    }
}
