// SPDX-License-Identifier: GPL-2.0

//! One pass over the operations that the driver takes from vfio-pci-core unchanged.
//!
//! The lint `data_path_is_c` proves that these are the C functions. This pass notices an operation
//! that is missing, or in the place of another one.

use raw::Pointer;
use vfio_bindings::bindings::vfio;

use crate::call::{At, Block, Bytes, Call, Handle, Request};
use crate::places::Scratch;
use crate::session::{Session, WAKEUP};

/// Places and values in configuration space (`linux/pci_regs.h`).
const COMMAND: u64 = 0x04;
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 0x10;
const CAPABILITIES: usize = 0x34;
const PM: u8 = 0x01;
const PM_CONTROL: u8 = 4;

const TRIGGER: u32 = vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
const GET: u32 = vfio::VFIO_DEVICE_FEATURE_GET;
const SET: u32 = vfio::VFIO_DEVICE_FEATURE_SET;
const PROBE: u32 = vfio::VFIO_DEVICE_FEATURE_PROBE;
pub const LOW_POWER_ENTRY: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
pub const LOW_POWER_EXIT: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
pub const WITH_WAKEUP: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;

const REGIONS: u32 = vfio::VFIO_PCI_NUM_REGIONS;
const IRQS: u32 = vfio::VFIO_PCI_NUM_IRQS;

/// A function's description of itself, by which calls are chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Configuration space after the open.
    pub config: Vec<u8>,
    /// The offset of the power management control register.
    pub pm_control: Option<u64>,
}

/// Uses the open function once in each way.
pub fn run(session: &mut Session<'_>) -> Facts {
    let facts = describe(session);
    enable_memory(session, true);
    memory(session, &facts);
    interrupts(session);
    for number in (0..=18).chain([0xffff]) {
        for flags in [PROBE, PROBE | GET, PROBE | SET, GET, SET | GET] {
            feature(session, flags | number, 16);
        }
    }
    low_power(session);
    session.call(Call::pointer(Handle::DEVICE, Request::RESET, Pointer::Null));
    read_scratch(session, Handle::DEVICE);
    facts
}

fn describe(session: &mut Session<'_>) -> Facts {
    let mut facts = Facts::default();
    let mut size = 0;
    session.call(Call::device(Request::GET_INFO, Block::words(&[64, 0])));
    for index in 0..=REGIONS {
        let block = Block::words(&[64, 0, index]);
        let info = session.call(Call::device(Request::GET_REGION_INFO, block));
        if index == vfio::VFIO_PCI_CONFIG_REGION_INDEX {
            size = info.number(16).unwrap_or(0);
        }
        // Behind the end of any region.
        let at = At { region: index, offset: 1 << 36 };
        session.call(Call::Read(Handle::DEVICE, at, 4));
    }
    for index in 0..=IRQS {
        session.call(Call::device(Request::GET_IRQ_INFO, Block::words(&[16, 0, index])));
    }
    let read = Call::Read(Handle::DEVICE, At::config(0), size);
    if let Some((0, bytes)) = session.call(read).changed.into_iter().next() {
        facts.config = bytes.0;
    }
    facts.pm_control = pm_control(&facts.config);
    facts
}

fn pm_control(config: &[u8]) -> Option<u64> {
    let byte = |at: usize| config.get(at).copied().unwrap_or(0);
    let mut at = byte(CAPABILITIES) & !3;
    // A list that is longer than the space is a circle.
    for _ in 0..64 {
        if at == 0 || byte(STATUS) & STATUS_CAPABILITIES == 0 {
            return None;
        }
        if byte(usize::from(at)) == PM {
            return Some(u64::from(at + PM_CONTROL));
        }
        at = byte(usize::from(at) + 1) & !3;
    }
    None
}

fn memory(session: &mut Session<'_>, facts: &Facts) {
    let Scratch { region, offset, length } = session.place().scratch;
    write_scratch(session, Handle::DEVICE, 0x55);
    read_scratch(session, Handle::DEVICE);
    let (at, in_page) = (At { region, offset: offset & !0xfff }, offset & 0xfff);
    for write in [false, true] {
        session.call(Call::Map(at, 4096, write));
        session.call(Call::Load(in_page, length as u32));
        session.call(Call::Store(in_page, Bytes(vec![0xaa; length])));
    }
    // A mapping of memory that is off, and of a device that is asleep.
    for enable in [false, true] {
        enable_memory(session, enable);
        set_power(session, facts, if enable { 0 } else { 3 });
        session.call(Call::Load(in_page, length as u32));
    }
    session.call(Call::Unmap);
    let ioeventfd = |file| ioeventfd(At { region, offset }, 4, 0x1122_3344, file);
    session.call(Call::device(Request::IOEVENTFD, ioeventfd(Handle::Event(0))));
    session.call(Call::Signal(0));
    read_scratch(session, Handle::DEVICE);
    session.call(Call::device(Request::IOEVENTFD, ioeventfd(Handle::Minus)));
    write_scratch(session, Handle::DEVICE, 0);
}

fn interrupts(session: &mut Session<'_>) {
    for index in 0..=IRQS {
        for file in [Handle::Event(0), Handle::Closed, Handle::Event(1)] {
            let flags = TRIGGER | vfio::VFIO_IRQ_SET_DATA_EVENTFD;
            let block = Block::words(&[24, flags, index, 0, 1]).file(file);
            session.call(Call::device(Request::SET_IRQS, block));
        }
        for action in [vfio::VFIO_IRQ_SET_ACTION_MASK, vfio::VFIO_IRQ_SET_ACTION_UNMASK] {
            for file in [Handle::Event(1), Handle::Minus] {
                let flags = action | vfio::VFIO_IRQ_SET_DATA_EVENTFD;
                let block = Block::words(&[24, flags, index, 0, 1]).file(file);
                session.call(Call::device(Request::SET_IRQS, block));
            }
            let flags = action | vfio::VFIO_IRQ_SET_DATA_NONE;
            let block = Block::words(&[20, flags, index, 0, 1]);
            session.call(Call::device(Request::SET_IRQS, block));
        }
        for count in [1, 0] {
            let block =
                Block::words(&[20, TRIGGER | vfio::VFIO_IRQ_SET_DATA_NONE, index, 0, count]);
            session.call(Call::device(Request::SET_IRQS, block));
        }
        session.call(Call::Signals);
    }
}

fn low_power(session: &mut Session<'_>) {
    feature(session, LOW_POWER_ENTRY, 0);
    session.call(Call::Suspended);
    session.call(Call::Read(Handle::DEVICE, At::config(0), 64));
    feature(session, LOW_POWER_EXIT, 0);
    session.call(Call::device(Request::FEATURE, wakeup(WAKEUP)));
    session.call(Call::Suspended);
    session.call(Call::Signals);
    read_scratch(session, Handle::DEVICE);
    session.call(Call::Signals);
    feature(session, LOW_POWER_EXIT, 0);
}

pub fn enable_memory(session: &mut Session<'_>, enable: bool) {
    session.call(Call::config(COMMAND, if enable { &[3, 0] } else { &[0, 0] }));
}

pub fn set_power(session: &mut Session<'_>, facts: &Facts, state: u8) {
    if let Some(control) = facts.pm_control {
        session.call(Call::config(control, &[state]));
    }
}

/// Sets the markers of a function to `value`.
pub fn write_scratch(session: &mut Session<'_>, on: Handle, value: u8) {
    let Scratch { region, offset, length } = session.place().scratch;
    session.call(Call::Write(on, At { region, offset }, Bytes(vec![value; length])));
}

pub fn read_scratch(session: &mut Session<'_>, on: Handle) {
    let Scratch { region, offset, length } = session.place().scratch;
    session.call(Call::Read(on, At { region, offset }, length as u32));
}

/// Restores the bytes behind the header of configuration space that no reset restores.
pub fn restore_config(session: &mut Session<'_>, facts: &Facts) {
    const HEADER: usize = 0x40;
    if let Some(bytes) = facts.config.get(HEADER..) {
        session.call(Call::config(HEADER as u64, bytes));
    }
}

/// Calls `VFIO_DEVICE_FEATURE` with data that is no file and no address.
pub fn feature(session: &mut Session<'_>, flags: u32, size: u32) {
    let block = Block::words(&[8 + size, flags]).raw(&[0; 64]);
    session.call(Call::device(Request::FEATURE, block));
}

fn wakeup(file: Handle) -> Block {
    Block::words(&[16, WITH_WAKEUP]).file(file).word(0)
}

pub fn ioeventfd(at: At, width: u32, data: u64, file: Handle) -> Block {
    // CAST: An offset in a file.
    Block::words(&[32, width]).long(at.in_file() as u64).long(data).file(file).word(0)
}
