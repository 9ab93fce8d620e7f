// SPDX-License-Identifier: GPL-2.0

//! Random calls: the same ones for the same seed and the same device.
//!
//! Most are valid, many are not quite. The device may come to be disabled or asleep by them, or have
//! its interrupts set up in some odd way: then that is what later calls find. What they do not do is
//! what depends on time (no interrupt that the device raises is counted), and what has the device
//! access memory.

use fastrand::Rng;

use crate::abi::feature;
use crate::abi::ioeventfd;
use crate::abi::irq;
use crate::abi::region;
use crate::abi::Request;
use crate::call::Access;
use crate::call::Argument;
use crate::call::At;
use crate::call::Bad;
use crate::call::Block;
use crate::call::Buffer;
use crate::call::Call;
use crate::call::Handle;
use crate::devices::Part;
use crate::devices::Profile;
use crate::facts::Facts;
use crate::fixed;
use crate::session::Mode;
use crate::session::Session;
use crate::session::EVENTS;
use crate::session::WAKEUP;

/// After so many calls a device does not sleep any more that was told to.
const SLEEP: u32 = 6;

/// Sizes that arguments are given.
const SIZES: [u32; 16] = [
    0,
    1,
    4,
    8,
    11,
    12,
    16,
    19,
    20,
    24,
    28,
    32,
    40,
    64,
    4096,
    u32::MAX,
];

/// How a call of one kind is drawn.
type Draw<G> = fn(&mut G) -> Call;

/// Draws calls.
struct Generator<'a> {
    rng: Rng,
    facts: &'a Facts,
    profile: &'a Profile,
    mode: Mode,
    /// What was mapped last, if it could be.
    mapped: Option<(At, u64)>,
    /// How many calls there are before the device is woken.
    asleep: u32,
}

/// Opens the device and makes `calls` calls.
pub fn run(session: &mut Session<'_>, facts: &Facts, seed: u64, calls: usize) {
    session.open();
    let profile = session.profile();
    let mut generator = Generator {
        rng: Rng::with_seed(seed),
        facts,
        profile,
        mode: session.mode(),
        mapped: None,
        asleep: 0,
    };
    fixed::clear_all(session);
    for _ in 0..calls {
        let call = generator.next();
        session.call(call);
    }
    fixed::restore_config(session, facts);
}

impl Generator<'_> {
    /// What calls are drawn, and how often each.
    const KINDS: [(u32, Draw<Self>); 18] = [
        (240, Self::config_read),
        (160, Self::config_write),
        (30, Self::repair),
        (140, Self::region_read),
        (100, Self::scratch_write),
        (60, Self::info),
        (120, Self::set_irqs),
        (20, Self::signal),
        (20, |_| Call::Signals),
        (30, Self::ioeventfd),
        (25, Self::map),
        (25, Self::use_mapping),
        (25, Self::feature),
        (4, Self::low_power),
        (20, Self::hot_reset_info),
        (10, Self::hot_reset),
        (1, Self::reset),
        (20, Self::garbage),
    ];

    fn next(&mut self) -> Call {
        if self.asleep > 0 {
            self.asleep -= 1;
            if self.asleep == 0 {
                return feature_call(feature::SET | feature::LOW_POWER_EXIT, 0);
            }
        }
        let total: u32 = Self::KINDS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.rng.u32(0..total);
        for (weight, kind) in Self::KINDS {
            if drawn < weight {
                return kind(self);
            }
            drawn -= weight;
        }
        Call::Signals
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        match self.rng.u32(0..4) {
            0 => vec![0; count],
            1 => vec![0xff; count],
            _ => (0..count).map(|_| self.rng.u8(..)).collect(),
        }
    }

    fn buffer(&mut self) -> Buffer {
        if !self.one_in(40) {
            return Buffer::Memory;
        }
        match self.rng.u32(0..4) {
            0 => Buffer::Bad(Bad::Null),
            1 => Buffer::Bad(Bad::Guard),
            2 => Buffer::Bad(Bad::Kernel),
            _ => Buffer::Short(self.rng.u16(1..8)),
        }
    }

    fn event(&mut self) -> Handle {
        match self.rng.u32(0..12) {
            0 => Handle::Closed,
            1 => Handle::Null,
            2 | 3 => Handle::Nobody,
            _ => Handle::Event(self.rng.u8(0..EVENTS)),
        }
    }

    fn width(&mut self) -> u32 {
        match self.rng.u32(0..10) {
            0 => self.rng.u32(0..70),
            1 => 8,
            2 | 3 => 2,
            4 | 5 => 1,
            _ => 4,
        }
    }

    /// A place in configuration space: in its header more often than in what follows.
    fn config_offset(&mut self, width: u32) -> u64 {
        let size = self.facts.config.len().max(64) as u64;
        let offset = match self.rng.u32(0..20) {
            0 => size - 4 + self.rng.u64(0..12),
            1..=3 => self.rng.u64(0..size),
            4..=9 => self.rng.u64(0x40..0x100),
            _ => self.rng.u64(0..0x40),
        };
        if width.is_power_of_two() && !self.one_in(6) {
            offset & !(u64::from(width) - 1)
        } else {
            offset
        }
    }

    fn config_read(&mut self) -> Call {
        let length = self.width();
        Call::Read {
            at: At::config(self.config_offset(length)),
            length,
            to: self.buffer(),
        }
    }

    fn config_write(&mut self) -> Call {
        let length = self.width().min(16);
        Call::Write {
            at: At::config(self.config_offset(length)),
            bytes: self.bytes(length as usize),
            from: self.buffer(),
        }
    }

    /// Enables what an earlier call may have disabled.
    fn repair(&mut self) -> Call {
        match self.facts.pm_control {
            Some(control) if self.rng.bool() => Call::write(At::config(u64::from(control)), &[0]),
            _ => Call::write(At::config(4), &[3, 0]),
        }
    }

    fn region_read(&mut self) -> Call {
        let index = self.rng.u32(0..=region::ROM);
        let size = self.facts.region(index).size.max(16);
        let length = self.width();
        let offset = match self.rng.u32(0..10) {
            0 => size - 8 + self.rng.u64(0..16),
            1..=3 => self.rng.u64(0..size),
            _ => self.rng.u64(0..size.min(0x200)),
        };
        let offset = if self.one_in(4) { offset } else { offset & !7 };
        Call::Read {
            at: At::new(index, offset),
            length,
            to: self.buffer(),
        }
    }

    /// A scratch register or some scratch memory.
    fn scratch(&mut self, most: u64) -> Option<(Part, u64, u64)> {
        if self.profile.scratch.is_empty() {
            return None;
        }
        let part = self.choose(self.profile.scratch);
        let length = self.choose(&[1, 2, 4, 8]).min(part.length).min(most);
        let offset = self.rng.u64(0..=part.length - length);
        let offset = if self.one_in(4) {
            offset
        } else {
            offset & !(length - 1)
        };
        Some((part, offset, length))
    }

    fn scratch_write(&mut self) -> Call {
        let Some((part, offset, length)) = self.scratch(8) else {
            return self.config_read();
        };
        let at = At::new(part.region, part.offset + offset);
        if self.rng.bool() {
            return Call::read(at, length as u32);
        }
        Call::Write {
            at,
            bytes: self.bytes(length as usize),
            from: self.buffer(),
        }
    }

    fn info(&mut self) -> Call {
        let request = self.choose(&[
            Request::GET_INFO,
            Request::GET_REGION_INFO,
            Request::GET_IRQ_INFO,
        ]);
        let argsz = if self.one_in(3) {
            self.choose(&SIZES)
        } else {
            request.layout().minimum + self.choose(&[0, 0, 8, 32])
        };
        let index = self.rng.u32(0..11);
        let block = Block::words(&[argsz, self.rng.u32(..), index]);
        Call::request(request, block)
    }

    fn set_irqs(&mut self) -> Call {
        let index = match self.rng.u32(0..16) {
            0 => self.rng.u32(..),
            1 => irq::COUNT,
            _ => self.rng.u32(0..irq::COUNT),
        };
        let available = self.facts.irqs(index);
        let start = match self.rng.u32(0..8) {
            0 => self.rng.u32(..),
            1 => available.saturating_sub(1),
            2 => self.rng.u32(0..4),
            _ => 0,
        };
        let count = match self.rng.u32(0..12) {
            0 => self.rng.u32(..),
            1 => available,
            2 => 0,
            3..=5 => self.rng.u32(0..4),
            _ => 1,
        };
        let action = match self.rng.u32(0..10) {
            0 => self.rng.u32(0..8) << 3,
            1 => irq::MASK,
            2 => irq::UNMASK,
            _ => irq::TRIGGER,
        };
        let data = match self.rng.u32(0..10) {
            0 => self.rng.u32(0..8),
            1 | 2 => irq::BOOL,
            3..=5 => irq::NONE,
            _ => irq::EVENTFD,
        };
        let flags = action | data | if self.one_in(40) { 0x40 } else { 0 };
        // For more than some there is no data.
        let given = count.min(40);
        let mut block = Block::words(&[0, flags, index, start, count]);
        match data {
            irq::BOOL => {
                for _ in 0..given {
                    block = block.raw(&[self.rng.u8(0..2)]);
                }
            }
            irq::EVENTFD => {
                for _ in 0..given {
                    let file = self.event();
                    block = block.file(file);
                }
            }
            _ => {}
        }
        let argsz = if self.one_in(20) {
            self.choose(&SIZES)
        } else {
            block.bytes.len() as u32
        };
        block.bytes[..4].copy_from_slice(&argsz.to_ne_bytes());
        // The kernel copies as much as the count says, if the size says the same.
        block.flush = self.one_in(20) || argsz as usize > block.bytes.len();
        Call::request(Request::SET_IRQS, block)
    }

    fn signal(&mut self) -> Call {
        Call::Signal(self.rng.u8(0..EVENTS))
    }

    fn ioeventfd(&mut self) -> Call {
        let Some((part, offset, length)) = self.scratch(8) else {
            return self.info();
        };
        // In no other place: who signals the file would write there.
        let at = match self.rng.u32(0..10) {
            0 => At::new(part.region, self.facts.region(part.region).size),
            1 => At::config(0),
            2 => At::new(region::ROM, 0),
            _ => At::new(part.region, part.offset + offset),
        };
        let flags = match self.rng.u32(0..10) {
            0 => self.choose(&[0, 3, 6, 16, 1 << 31]),
            1 => self.choose(&ioeventfd::WIDTHS).min(length as u32),
            _ => length as u32,
        };
        let data = self.rng.u64(0..3);
        let file = self.event();
        let argsz = if self.one_in(20) {
            self.choose(&SIZES)
        } else {
            32
        };
        let block = Block::words(&[argsz, flags])
            // CAST: An offset in a file.
            .long(at.in_file() as u64)
            .long(data)
            .file(file)
            .word(0);
        Call::request(Request::IOEVENTFD, block)
    }

    fn map(&mut self) -> Call {
        const PAGE: u64 = 4096;
        if self.one_in(8) {
            self.mapped = None;
            return Call::Unmap;
        }
        let index = self.rng.u32(0..=region::COUNT);
        let pages = self.facts.region(index).size.div_ceil(PAGE);
        let mut offset = self.rng.u64(0..=pages) * PAGE;
        let mut index = index;
        if self.rng.bool() {
            if let Some((part, _, _)) = self.scratch(1) {
                index = part.region;
                offset = part.offset & !(PAGE - 1);
            }
        }
        let length = self.choose(&[1, PAGE, PAGE, PAGE, 2 * PAGE, 16 * PAGE]);
        let access = Access {
            read: !self.one_in(6),
            write: !self.one_in(6),
            shared: !self.one_in(10),
        };
        let at = At::new(index, offset);
        self.mapped = Some((at, length));
        Call::Map { at, length, access }
    }

    fn use_mapping(&mut self) -> Call {
        let Some((at, length)) = self.mapped else {
            return self.map();
        };
        if self.rng.bool() {
            if let Some(store) = self.store(at, length) {
                return store;
            }
        }
        let count = self.choose(&[1, 2, 4, 8]);
        let offset = self.rng.u64(0..length.max(9) - 8) & !7;
        if self.is_in_table(at, offset) {
            return self.map();
        }
        Call::Load {
            offset,
            length: count,
        }
    }

    /// A write to scratch memory that a mapping has in it.
    fn store(&mut self, mapped: At, length: u64) -> Option<Call> {
        let (part, offset, count) = self.scratch(8)?;
        let offset = (part.offset + offset).checked_sub(mapped.offset)?;
        if part.region != mapped.region || offset + count > length {
            return None;
        }
        Some(Call::Store {
            offset,
            bytes: self.bytes(count as usize),
        })
    }

    /// Whether a mapping has the MSI-X table there: what the kernel puts into it is not the same each
    /// time.
    fn is_in_table(&self, mapped: At, offset: u64) -> bool {
        self.facts.msix.is_some_and(|table| {
            let offset = mapped.offset + offset;
            table.region == mapped.region
                && offset + 8 > table.offset
                && offset < table.offset + table.size
        })
    }

    fn feature(&mut self) -> Call {
        let number = self.rng.u32(0..18);
        let operation = match self.rng.u32(0..6) {
            0 => feature::GET,
            1 if !is_low_power(number) => feature::SET,
            2 => feature::GET | feature::SET,
            3 => feature::PROBE,
            4 => feature::PROBE | feature::GET,
            _ => feature::PROBE | feature::SET,
        };
        let size = self.choose(&[0, 4, 8, 16, 24, 40]);
        feature_call(operation | number, size)
    }

    fn low_power(&mut self) -> Call {
        match self.rng.u32(0..3) {
            0 => feature_call(feature::SET | feature::LOW_POWER_EXIT, 0),
            1 => {
                let file = self.choose(&[
                    WAKEUP,
                    WAKEUP,
                    WAKEUP,
                    Handle::Closed,
                    Handle::Null,
                    Handle::Nobody,
                ]);
                let flags = feature::SET | feature::LOW_POWER_ENTRY_WITH_WAKEUP;
                let block = Block::words(&[16, flags]).file(file).word(0);
                Call::request(Request::FEATURE, block)
            }
            _ => {
                self.asleep = SLEEP;
                feature_call(feature::SET | feature::LOW_POWER_ENTRY, 0)
            }
        }
    }

    fn hot_reset_info(&mut self) -> Call {
        let argsz = self.choose(&SIZES);
        let mut block = Block::words(&[argsz, self.rng.u32(..), self.rng.u32(..)]);
        block.flush = self.one_in(6);
        Call::request(Request::GET_PCI_HOT_RESET_INFO, block)
    }

    /// Right once in a while: it takes its time.
    fn hot_reset(&mut self) -> Call {
        let right = self.one_in(10);
        let argsz = if right { 16 } else { self.choose(&SIZES) };
        let flags = if right || self.rng.bool() {
            0
        } else {
            self.rng.u32(..)
        };
        let by_group = self.mode == Mode::Group;
        let count = match (right, by_group) {
            (true, true) => 1,
            (true, false) => 0,
            // What is wrong with it may only be the size, or nothing.
            (false, true) => self.choose(&[0, 1, 2, 3, u32::MAX]),
            (false, false) => self.choose(&[1, 2, 3, u32::MAX]),
        };
        let file = match (right, by_group) {
            (true, _) => Handle::Group,
            (false, _) => self.choose(&[
                Handle::Null,
                Handle::Closed,
                Handle::Nobody,
                Handle::Device,
                Handle::Container,
                Handle::Iommufd,
            ]),
        };
        let block = Block::words(&[argsz, flags, count]).file(file).file(file);
        Call::request(Request::PCI_HOT_RESET, block)
    }

    fn reset(&mut self) -> Call {
        Call::Ioctl {
            on: Handle::Device,
            request: Request::RESET,
            argument: Argument::Number(0),
        }
    }

    /// A request with nothing right in it; none that resets, and no feature that is used.
    fn garbage(&mut self) -> Call {
        let request = Request::vfio(self.rng.u32(0..30));
        let argument = match self.rng.u32(0..6) {
            0 => Argument::Bad(Bad::Null),
            1 => Argument::Bad(Bad::Guard),
            2 => Argument::Bad(Bad::Kernel),
            3 => Argument::Number(self.rng.u16(..)),
            _ => Argument::Block(self.garbage_block(request)),
        };
        let on = match (self.rng.u32(0..8), self.mode, &argument) {
            (0, _, _) => Handle::Null,
            (1, Mode::Group, Argument::Bad(_)) => Handle::Container,
            (1, Mode::Cdev, Argument::Bad(_)) => Handle::Iommufd,
            (2, Mode::Group, Argument::Bad(_)) => Handle::Group,
            _ => Handle::Device,
        };
        let request = match request {
            Request::RESET if on == Handle::Device => Request::GET_INFO,
            other => other,
        };
        Call::Ioctl {
            on,
            request,
            argument,
        }
    }

    fn garbage_block(&mut self, request: Request) -> Block {
        let argsz = self.choose(&SIZES);
        let mut block = match request {
            Request::FEATURE => {
                let flags = self.rng.u32(..) | feature::PROBE;
                Block::words(&[argsz, flags]).raw(&[0; 64])
            }
            // A count of its own accord would be right.
            Request::PCI_HOT_RESET => Block::words(&[argsz, 1, 1, 0]),
            // Files that are none, and places that are not in any BAR.
            Request::SET_IRQS => Block::words(&[argsz, 0, self.rng.u32(..), 0, 0]),
            Request::IOEVENTFD => Block::words(&[argsz, self.rng.u32(16..), 0, 0, 0, 0, 0]),
            _ => {
                let words: Vec<u32> = (0..8).map(|_| self.rng.u32(..)).collect();
                let mut block = Block::words(&words);
                block.bytes[..4].copy_from_slice(&argsz.to_ne_bytes());
                block
            }
        };
        block.flush = self.one_in(4);
        block
    }
}

fn is_low_power(number: u32) -> bool {
    (feature::LOW_POWER_ENTRY..=feature::LOW_POWER_EXIT).contains(&number)
}

/// With this much data, in which nothing is a file or an address.
fn feature_call(flags: u32, size: u32) -> Call {
    let block = Block::words(&[8 + size, flags]).raw(&[0; 64]);
    Call::request(Request::FEATURE, block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices;

    fn sequence(seed: u64) -> Vec<String> {
        let facts = Facts::default();
        let mut generator = Generator {
            rng: Rng::with_seed(seed),
            facts: &facts,
            profile: &devices::ALL[0],
            mode: Mode::Group,
            mapped: None,
            asleep: 0,
        };
        (0..5000).map(|_| generator.next().to_string()).collect()
    }

    #[test]
    fn a_seed_is_a_sequence() {
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }

    #[test]
    fn only_scratch_is_written() {
        let of_bars = sequence(3);
        let writes = of_bars.iter().filter(|call| call.starts_with("write BAR"));
        for write in writes {
            let offset = write.split(['+', ' ']).nth(2).expect("an offset");
            let offset = offset.strip_prefix("0x").expect("in hexadecimal");
            let offset = u64::from_str_radix(offset, 16).expect("a number");
            assert!((0x5200..0x5280).contains(&offset), "{write}");
        }
    }
}
