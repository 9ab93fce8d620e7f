// SPDX-License-Identifier: GPL-2.0

//! One pass over the operations that the driver takes from vfio-pci-core unchanged.
//!
//! The lint `data_path_is_c` proves that these are the C functions. This pass notices an operation
//! that is missing, or in the place of another one.

use anyhow::{Context, Result};
use lab::sysfs::{capability, CAPABILITY_PM};
use raw::Pointer;
use vfio_bindings::bindings::vfio;

use crate::call::{At, Block, Bytes, Call, Handle, Request};
use crate::places::Scratch;
use crate::session::{Session, WAKEUP};

/// Places in configuration space, the latter in a capability (`linux/pci_regs.h`).
const COMMAND: u64 = 0x04;
const PM_CONTROL: u64 = 4;

/// The size of conventional configuration space.
const CONFIG: u32 = 256;

const TRIGGER: u32 = vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
const GET: u32 = vfio::VFIO_DEVICE_FEATURE_GET;
const SET: u32 = vfio::VFIO_DEVICE_FEATURE_SET;
const PROBE: u32 = vfio::VFIO_DEVICE_FEATURE_PROBE;
const LOW_POWER_ENTRY: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
const LOW_POWER_EXIT: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
const WITH_WAKEUP: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;

const REGIONS: u32 = vfio::VFIO_PCI_NUM_REGIONS;
const IRQS: u32 = vfio::VFIO_PCI_NUM_IRQS;

/// Uses the open function once in each way.
pub fn run(session: &mut Session<'_>) -> Result<()> {
    session.ask(Handle::DEVICE, Request::GET_INFO, &[64, 0]);
    for index in 0..=REGIONS {
        session.ask(Handle::DEVICE, Request::GET_REGION_INFO, &[64, 0, index]);
        // Behind the end of any region.
        let at = At { region: index, offset: 1 << 36 };
        session.call(Call::Read(Handle::DEVICE, at, 4));
    }
    for index in 0..=IRQS {
        session.ask(Handle::DEVICE, Request::GET_IRQ_INFO, &[16, 0, index]);
    }
    let config = session.call(Call::Read(Handle::DEVICE, At::config(0), CONFIG));
    let (_, config) = config.changed.first().context("the function could not be opened")?;
    enable_memory(session, true);
    memory(session, capability(&config.0, CAPABILITY_PM));
    interrupts(session);
    for number in (0..=18).chain([0xffff]) {
        for flags in [PROBE, PROBE | GET, PROBE | SET, GET, SET | GET] {
            feature(session, flags | number, 16);
        }
    }
    low_power(session);
    session.call(Call::pointer(Handle::DEVICE, Request::RESET, Pointer::Null));
    read_scratch(session, Handle::DEVICE);
    Ok(())
}

/// `pm` is the place of the power management capability.
fn memory(session: &mut Session<'_>, pm: Option<u8>) {
    let scratch = session.place.scratch.at;
    let at = session.place.scratch.page();
    write_scratch(session, Handle::DEVICE, 0x55);
    read_scratch(session, Handle::DEVICE);
    for write in [false, true] {
        session.call(Call::Map(at, 4096, write));
    }
    // Memory that is off, and a device that is asleep. (The selftests access the mapping.)
    for (enable, power_state) in [(false, 3), (true, 0)] {
        enable_memory(session, enable);
        if let Some(pm) = pm {
            session.call(Call::config(u64::from(pm) + PM_CONTROL, &[power_state]));
        }
        read_scratch(session, Handle::DEVICE);
    }
    session.call(Call::Unmap);
    let ioeventfd = |file| ioeventfd(scratch, 4, 0x1122_3344, file);
    session.call(Call::device(Request::IOEVENTFD, ioeventfd(Handle::Event(0))));
    session.call(Call::Signal(0));
    read_scratch(session, Handle::DEVICE);
    session.call(Call::device(Request::IOEVENTFD, ioeventfd(Handle::Minus)));
    write_scratch(session, Handle::DEVICE, 0);
}

fn interrupts(session: &mut Session<'_>) {
    let by_eventfd = |session: &mut Session<'_>, action: u32, index: u32, file: Handle| {
        let flags = action | vfio::VFIO_IRQ_SET_DATA_EVENTFD;
        let block = Block::words(&[24, flags, index, 0, 1]).file(file);
        session.call(Call::device(Request::SET_IRQS, block));
    };
    let by_call = |session: &mut Session<'_>, action: u32, index: u32, count: u32| {
        let flags = action | vfio::VFIO_IRQ_SET_DATA_NONE;
        session.ask(Handle::DEVICE, Request::SET_IRQS, &[20, flags, index, 0, count]);
    };
    for index in 0..=IRQS {
        for file in [Handle::Event(0), Handle::Closed, Handle::Event(1)] {
            by_eventfd(session, TRIGGER, index, file);
        }
        for action in [vfio::VFIO_IRQ_SET_ACTION_MASK, vfio::VFIO_IRQ_SET_ACTION_UNMASK] {
            by_eventfd(session, action, index, Handle::Event(1));
            by_eventfd(session, action, index, Handle::Minus);
            by_call(session, action, index, 1);
        }
        by_call(session, TRIGGER, index, 1);
        by_call(session, TRIGGER, index, 0);
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

/// Sets the markers of a function to `value`.
pub fn write_scratch(session: &mut Session<'_>, on: Handle, value: u8) {
    let Scratch { at, length } = session.place.scratch;
    session.call(Call::Write(on, at, Bytes(vec![value; length])));
}

pub fn read_scratch(session: &mut Session<'_>, on: Handle) {
    let Scratch { at, length } = session.place.scratch;
    session.call(Call::Read(on, at, length as u32));
}

/// Calls `VFIO_DEVICE_FEATURE` with data that is no file and no address.
fn feature(session: &mut Session<'_>, flags: u32, size: u32) {
    let block = Block::words(&[8 + size, flags]).raw(&[0; 64]);
    session.call(Call::device(Request::FEATURE, block));
}

fn wakeup(file: Handle) -> Block {
    Block::words(&[16, WITH_WAKEUP]).file(file).word(0)
}

fn ioeventfd(at: At, width: u32, data: u64, file: Handle) -> Block {
    Block::words(&[32, width])
        .raw(&at.in_file().to_ne_bytes())
        .raw(&data.to_ne_bytes())
        .file(file)
        .word(0)
}
