// SPDX-License-Identifier: GPL-2.0

//! What a device says of itself, by which calls are chosen: its regions, its interrupts, and where its
//! capabilities are.

use crate::abi::irq;
use crate::abi::region;
use crate::abi::Request;
use crate::call::At;
use crate::call::Block;
use crate::call::Call;
use crate::session::Session;

/// IDs and registers of capabilities (`linux/pci_regs.h`).
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 0x10;
const CAPABILITIES: usize = 0x34;
const PM: u8 = 0x01;
const PM_CONTROL: u16 = 4;
const MSIX: u8 = 0x11;

/// `VFIO_REGION_INFO_FLAG_MMAP`.
const FLAG_MMAP: u32 = 1 << 2;

/// A region, if its size is not 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Region {
    /// How many bytes it has.
    pub size: u64,
    /// Whether it can be mapped.
    pub can_be_mapped: bool,
}

/// Where the MSI-X table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The BAR.
    pub region: u32,
    /// How far into it.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// What a device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The regions, by index.
    pub regions: Vec<Region>,
    /// How many interrupts there are, by index.
    pub irqs: Vec<u32>,
    /// What configuration space had in it.
    pub config: Vec<u8>,
    /// Where the control register of power management is.
    pub pm_control: Option<u16>,
    /// The MSI-X table.
    pub msix: Option<Table>,
}

impl Facts {
    /// Asks the device.
    pub fn gather(session: &mut Session<'_>) -> Self {
        let mut facts = Facts::default();
        for index in 0..region::COUNT {
            let block = Block::words(&[32, 0, index]);
            let info = session.call(Call::request(Request::GET_REGION_INFO, block));
            let size = info.number(16).zip(info.number(20));
            let size = size.map_or(0, |(low, high)| (u64::from(high) << 32) | u64::from(low));
            facts.regions.push(Region {
                size: if info.succeeded() { size } else { 0 },
                can_be_mapped: info.number(4).is_some_and(|flags| flags & FLAG_MMAP != 0),
            });
        }
        for index in 0..irq::COUNT {
            let block = Block::words(&[16, 0, index]);
            let info = session.call(Call::request(Request::GET_IRQ_INFO, block));
            facts.irqs.push(info.number(12).unwrap_or(0));
        }
        // CAST: A few kilobytes.
        let size = facts.region(region::CONFIG).size as u32;
        let config = session.call(Call::read(At::config(0), size));
        if let Some((0, bytes)) = config.changed.into_iter().next() {
            facts.config = bytes;
        }
        facts.pm_control = facts.capability(PM).map(|at| at + PM_CONTROL);
        facts.msix = facts.capability(MSIX).and_then(|at| facts.table(at));
        facts
    }

    /// The region of an index.
    pub fn region(&self, index: u32) -> Region {
        self.regions
            .get(index as usize)
            .copied()
            .unwrap_or_default()
    }

    /// How many interrupts an index has.
    pub fn irqs(&self, index: u32) -> u32 {
        self.irqs.get(index as usize).copied().unwrap_or(0)
    }

    fn byte(&self, at: usize) -> u8 {
        self.config.get(at).copied().unwrap_or(0)
    }

    fn number(&self, at: usize, bytes: usize) -> u64 {
        (at..at + bytes)
            .rev()
            .fold(0, |number, at| (number << 8) | u64::from(self.byte(at)))
    }

    /// Where the capability of an ID is.
    fn capability(&self, id: u8) -> Option<u16> {
        if self.byte(STATUS) & STATUS_CAPABILITIES == 0 {
            return None;
        }
        let mut at = usize::from(self.byte(CAPABILITIES) & !3);
        // Each takes four bytes at least; a list that is longer than the space goes in circles.
        for _ in 0..64 {
            if at == 0 {
                return None;
            }
            if self.byte(at) == id {
                return u16::try_from(at).ok();
            }
            at = usize::from(self.byte(at + 1) & !3);
        }
        None
    }

    fn table(&self, capability: u16) -> Option<Table> {
        let at = usize::from(capability);
        let vectors = (self.number(at + 2, 2) & 0x7ff) + 1;
        let place = self.number(at + 4, 4);
        Some(Table {
            region: u32::try_from(place & 7).ok()?,
            offset: place & !7,
            size: vectors * 16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        let mut facts = Facts {
            config: vec![0; 256],
            ..Facts::default()
        };
        facts.config[STATUS] = STATUS_CAPABILITIES;
        facts.config[CAPABILITIES] = 0x40;
        facts.config[0x40..0x42].copy_from_slice(&[MSIX, 0x50]);
        facts.config[0x42] = 3;
        facts.config[0x44..0x46].copy_from_slice(&[4, 0x20]);
        facts.config[0x50] = PM;
        assert_eq!(facts.capability(PM), Some(0x50));
        assert_eq!(facts.capability(0x10), None);
        assert_eq!(
            facts.table(0x40),
            Some(Table {
                region: 4,
                offset: 0x2000,
                size: 64
            })
        );
    }
}
