// SPDX-License-Identifier: GPL-2.0

//! The state that an open, a reset and a close leave to the operations that the driver takes from
//! vfio-pci-core unchanged.
//!
//! The lint `data_path_is_c` proves that these are the C functions, and their types that none is in
//! the place of another one.

use anyhow::{ensure, Result};
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
const SET: u32 = vfio::VFIO_DEVICE_FEATURE_SET;
const LOW_POWER_ENTRY: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
const LOW_POWER_EXIT: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
const WITH_WAKEUP: u32 = SET | vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;

const REGIONS: u32 = vfio::VFIO_PCI_NUM_REGIONS;
const IRQS: u32 = vfio::VFIO_PCI_NUM_IRQS;

/// Uses the open function, and closes it.
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
    ensure!(!config.changed.is_empty(), "the function could not be opened");
    enable_memory(session);
    write_scratch(session, Handle::DEVICE, 0x55);
    read_scratch(session, Handle::DEVICE);
    session.call(Call::pointer(Handle::DEVICE, Request::RESET, Pointer::Null));
    read_scratch(session, Handle::DEVICE);
    closed(session);
    Ok(())
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
        enable_memory(session);
        session.call(Call::Signal(0));
        read_scratch(session, Handle::DEVICE);
        ioeventfd(session, Handle::Minus);
    }
}

/// Enables INTx, and masks it. The host's configuration space shows where.
pub fn mask_intx(session: &mut Session<'_>) {
    irq_by_eventfd(session, TRIGGER, vfio::VFIO_PCI_INTX_IRQ_INDEX, Handle::Event(0));
    let flags = vfio::VFIO_IRQ_SET_ACTION_MASK | vfio::VFIO_IRQ_SET_DATA_NONE;
    let mask = [20, flags, vfio::VFIO_PCI_INTX_IRQ_INDEX, 0, 1];
    session.ask(Handle::DEVICE, Request::SET_IRQS, &mask);
    session.call(Call::Config(0));
}

fn irq_by_eventfd(session: &mut Session<'_>, action: u32, index: u32, file: Handle) {
    let flags = action | vfio::VFIO_IRQ_SET_DATA_EVENTFD;
    let block = Block::words(&[24, flags, index, 0, 1]).file(file);
    session.call(Call::device(Request::SET_IRQS, block));
}

/// Returns the place of the power state in configuration space, if that can be read.
fn power_state_of(session: &mut Session<'_>, on: Handle) -> Option<u64> {
    let config = session.call(Call::Read(on, At::config(0), CONFIG));
    let (_, config) = config.changed.first()?;
    capability(&config.0, CAPABILITY_PM).map(|pm| u64::from(pm) + PM_CONTROL)
}

/// Puts a function to sleep by a feature, or into D3hot by its power state.
pub fn sleep(session: &mut Session<'_>, on: Handle, by_feature: bool) {
    if by_feature {
        feature(session, on, LOW_POWER_ENTRY);
        session.call(Call::Suspended(on.function()));
    } else if let Some(pm) = power_state_of(session, on) {
        session.call(Call::Write(on, At::config(pm), Bytes(vec![3])));
    }
}

pub fn wake(session: &mut Session<'_>, on: Handle) {
    feature(session, on, LOW_POWER_EXIT);
}

pub fn enable_memory(session: &mut Session<'_>) {
    session.call(Call::config(COMMAND, &[3, 0]));
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

/// Calls `VFIO_DEVICE_FEATURE` without data.
fn feature(session: &mut Session<'_>, on: Handle, flags: u32) {
    session.call(Call::block(on, Request::FEATURE, Block::words(&[8, flags])));
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
