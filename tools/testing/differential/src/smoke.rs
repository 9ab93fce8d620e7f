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

/// Places in configuration space, the last one in a capability (`linux/pci_regs.h`).
const COMMAND: u64 = 0x04;
const CACHE_LINE_SIZE: u64 = 0x0c;
const BARS: std::ops::Range<u64> = 0x10..0x28;
const INTERRUPT_LINE: u64 = 0x3c;
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
    let pm = power_state_of(session, Handle::DEVICE).context("the function could not be opened")?;
    enable_memory(session, true);
    memory(session, pm);
    interrupts(session);
    for number in (0..=18).chain([0xffff]) {
        for flags in [PROBE, PROBE | GET, PROBE | SET, GET, SET | GET] {
            feature(session, Handle::DEVICE, flags | number, 16);
        }
    }
    low_power(session);
    session.call(Call::pointer(Handle::DEVICE, Request::RESET, Pointer::Null));
    read_scratch(session, Handle::DEVICE);
    closed(session);
    Ok(())
}

/// `pm` is the place of the power state.
fn memory(session: &mut Session<'_>, pm: Option<u64>) {
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
            session.call(Call::config(pm, &[power_state]));
        }
        read_scratch(session, Handle::DEVICE);
    }
    session.call(Call::Unmap);
    ioeventfd(session, Handle::Event(0));
    session.call(Call::Signal(0));
    read_scratch(session, Handle::DEVICE);
    ioeventfd(session, Handle::Minus);
    write_scratch(session, Handle::DEVICE, 0);
}

/// A close takes back changes of configuration space, interrupts and ioeventfds. It finds the
/// function awake, or in each way to sleep.
fn closed(session: &mut Session<'_>) {
    for way in 0..4 {
        // BARs and the interrupt line are virtual, the cache line size is not.
        for bar in BARS.step_by(4) {
            session.call(Call::config(bar, &[0xff; 4]));
        }
        session.call(Call::config(INTERRUPT_LINE, &[0x5a]));
        session.call(Call::config(CACHE_LINE_SIZE, &[0x3c]));
        session.call(Call::Config(0));
        // Memory and bus master.
        session.call(Call::config(COMMAND, &[6, 0]));
        for index in [vfio::VFIO_PCI_MSIX_IRQ_INDEX, vfio::VFIO_PCI_MSI_IRQ_INDEX] {
            irq_by_eventfd(session, TRIGGER, index, Handle::Event(1));
        }
        ioeventfd(session, Handle::Event(0));
        match way {
            0 => {}
            3 => _ = session.call(Call::device(Request::FEATURE, wakeup(WAKEUP))),
            way => sleep(session, Handle::DEVICE, way == 2),
        }
        session.call(Call::CloseAll);
        session.call(Call::State(0));
        session.call(Call::Config(0));
        session.open(Handle::DEVICE);
        session.call(Call::Read(Handle::DEVICE, At::config(0), CONFIG));
        enable_memory(session, true);
        session.call(Call::Signal(0));
        read_scratch(session, Handle::DEVICE);
        ioeventfd(session, Handle::Minus);
    }
}

fn interrupts(session: &mut Session<'_>) {
    for index in 0..=IRQS {
        for file in [Handle::Event(0), Handle::Closed, Handle::Event(1)] {
            irq_by_eventfd(session, TRIGGER, index, file);
        }
        for action in [vfio::VFIO_IRQ_SET_ACTION_MASK, vfio::VFIO_IRQ_SET_ACTION_UNMASK] {
            irq_by_eventfd(session, action, index, Handle::Event(1));
            irq_by_eventfd(session, action, index, Handle::Minus);
            irq_by_call(session, action, index, 1);
        }
        irq_by_call(session, TRIGGER, index, 1);
        irq_by_call(session, TRIGGER, index, 0);
        session.call(Call::Signals);
    }
}

/// Enables INTx, and masks it. The host's configuration space shows where.
pub fn mask_intx(session: &mut Session<'_>) {
    irq_by_eventfd(session, TRIGGER, vfio::VFIO_PCI_INTX_IRQ_INDEX, Handle::Event(0));
    irq_by_call(session, vfio::VFIO_IRQ_SET_ACTION_MASK, vfio::VFIO_PCI_INTX_IRQ_INDEX, 1);
    session.call(Call::Config(0));
}

fn irq_by_eventfd(session: &mut Session<'_>, action: u32, index: u32, file: Handle) {
    let flags = action | vfio::VFIO_IRQ_SET_DATA_EVENTFD;
    let block = Block::words(&[24, flags, index, 0, 1]).file(file);
    session.call(Call::device(Request::SET_IRQS, block));
}

fn irq_by_call(session: &mut Session<'_>, action: u32, index: u32, count: u32) {
    let flags = action | vfio::VFIO_IRQ_SET_DATA_NONE;
    session.ask(Handle::DEVICE, Request::SET_IRQS, &[20, flags, index, 0, count]);
}

fn low_power(session: &mut Session<'_>) {
    sleep(session, Handle::DEVICE, true);
    session.call(Call::Read(Handle::DEVICE, At::config(0), 64));
    wake(session, Handle::DEVICE);
    session.call(Call::device(Request::FEATURE, wakeup(WAKEUP)));
    session.call(Call::Suspended(0));
    session.call(Call::Signals);
    read_scratch(session, Handle::DEVICE);
    session.call(Call::Signals);
    wake(session, Handle::DEVICE);
}

/// Returns the place of the power state in configuration space, if that can be read.
fn power_state_of(session: &mut Session<'_>, on: Handle) -> Option<Option<u64>> {
    let config = session.call(Call::Read(on, At::config(0), CONFIG));
    let (_, config) = config.changed.first()?;
    Some(capability(&config.0, CAPABILITY_PM).map(|pm| u64::from(pm) + PM_CONTROL))
}

/// Puts a function to sleep by a feature, or into D3hot by its power state.
pub fn sleep(session: &mut Session<'_>, on: Handle, by_feature: bool) {
    if by_feature {
        feature(session, on, LOW_POWER_ENTRY, 0);
        session.call(Call::Suspended(on.function()));
    } else if let Some(pm) = power_state_of(session, on).flatten() {
        session.call(Call::Write(on, At::config(pm), Bytes(vec![3])));
    }
}

pub fn wake(session: &mut Session<'_>, on: Handle) {
    feature(session, on, LOW_POWER_EXIT, 0);
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
fn feature(session: &mut Session<'_>, on: Handle, flags: u32, size: u32) {
    let block = Block::words(&[8 + size, flags]).raw(&[0; 64]);
    session.call(Call::block(on, Request::FEATURE, block));
}

fn wakeup(file: Handle) -> Block {
    Block::words(&[16, WITH_WAKEUP]).file(file).word(0)
}

/// Connects an eventfd with a value of the scratch register, or removes the connection.
fn ioeventfd(session: &mut Session<'_>, file: Handle) {
    let block = Block::words(&[32, 4])
        .raw(&session.place.scratch.at.in_file().to_ne_bytes())
        .raw(&0x1122_3344_u64.to_ne_bytes())
        .file(file)
        .word(0);
    session.call(Call::device(Request::IOEVENTFD, block));
}
