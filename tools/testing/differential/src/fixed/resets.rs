// SPDX-License-Identifier: GPL-2.0

//! Resets that the user asks for: of the function, and of its slot or bus.

use crate::abi::Request;
use crate::call::Access;
use crate::call::Argument;
use crate::call::At;
use crate::call::Bad;
use crate::call::Block;
use crate::call::Call;
use crate::call::Handle;
use crate::facts::Facts;
use crate::session::Mode;
use crate::session::Session;

const RESET: Call = Call::Ioctl {
    on: Handle::Device,
    request: Request::RESET,
    argument: Argument::Number(0),
};

pub(super) fn run(session: &mut Session<'_>, facts: &Facts) {
    super::enable_memory(session, true);
    function(session, facts);
    info(session);
    match session.mode() {
        Mode::Group => by_group(session),
        Mode::Cdev => by_context(session),
    }
    super::whole_config(session, facts);
    look(session);
}

/// What is left in the device's scratch registers.
fn look(session: &mut Session<'_>) {
    for part in session.profile().scratch {
        let at = At::new(part.region, part.offset);
        session.call(Call::read(at, part.length.min(16) as u32));
    }
}

fn mark(session: &mut Session<'_>) {
    for part in session.profile().scratch {
        let at = At::new(part.region, part.offset);
        let ones = vec![0x55; part.length.min(16) as usize];
        session.call(Call::write(at, &ones));
    }
}

/// `VFIO_DEVICE_RESET`, of a device in use, of one that is off, and of one that is asleep.
fn function(session: &mut Session<'_>, facts: &Facts) {
    mark(session);
    look(session);
    if let Some(part) = session.profile().scratch.first() {
        session.call(Call::Map {
            at: At::new(part.region, part.offset & !0xfff),
            length: 4096,
            access: Access::ALL,
        });
    }
    session.call(RESET);
    look(session);
    session.call(Call::Load {
        offset: 0,
        length: 8,
    });
    session.call(Call::Unmap);
    super::whole_config(session, facts);
    super::enable_memory(session, false);
    super::set_power(session, facts, 3);
    session.call(RESET);
    super::whole_config(session, facts);
    super::set_power(session, facts, 0);
    super::enable_memory(session, true);
    session.call(Call::Ioctl {
        on: Handle::Device,
        request: Request::RESET,
        argument: Argument::Bad(Bad::Kernel),
    });
}

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`, with room for none to many functions.
fn info(session: &mut Session<'_>) {
    for argsz in [
        0,
        4,
        11,
        12,
        13,
        19,
        20,
        21,
        27,
        28,
        36,
        44,
        100,
        4096,
        u32::MAX,
    ] {
        for flags in [0, u32::MAX] {
            let block = Block::words(&[argsz, flags]);
            session.call(Call::request(Request::GET_PCI_HOT_RESET_INFO, block));
        }
        // Room is promised where there is none.
        for words in [&[argsz, 0, 0][..], &[argsz, 0, 0, 0]] {
            let block = Block::words(words).flush();
            session.call(Call::request(Request::GET_PCI_HOT_RESET_INFO, block));
        }
    }
}

/// A hot reset as it has to be.
pub(crate) fn hot_reset(session: &mut Session<'_>) {
    // No size is asked of an array.
    match session.mode() {
        Mode::Group => reset_bus(session, 12, 0, 1, &[Handle::Group]),
        Mode::Cdev => reset_bus(session, 12, 0, 0, &[]),
    }
}

fn reset_bus(session: &mut Session<'_>, argsz: u32, flags: u32, count: u32, files: &[Handle]) {
    let block = Block::words(&[argsz, flags, count]);
    let block = files.iter().fold(block, |block, &file| block.file(file));
    session.call(Call::request(Request::PCI_HOT_RESET, block));
}

/// What is wrong in either mode.
fn wrong(session: &mut Session<'_>, count: u32, files: &[Handle]) {
    for argsz in [0, 4, 11] {
        reset_bus(session, argsz, 0, count, files);
    }
    for flags in [1, 2, 0x8000_0000, u32::MAX] {
        reset_bus(session, 16, flags, count, files);
    }
    for bad in [Bad::Null, Bad::Guard, Bad::Kernel] {
        session.call(Call::Ioctl {
            on: Handle::Device,
            request: Request::PCI_HOT_RESET,
            argument: Argument::Bad(bad),
        });
    }
}

/// `VFIO_DEVICE_PCI_HOT_RESET` by who shows the groups.
fn by_group(session: &mut Session<'_>) {
    wrong(session, 1, &[Handle::Group]);
    for file in [
        Handle::Nobody,
        Handle::Closed,
        Handle::Null,
        Handle::Container,
        Handle::Device,
        Handle::Event(0),
    ] {
        reset_bus(session, 16, 0, 1, &[file]);
        reset_bus(session, 20, 0, 2, &[Handle::Group, file]);
        reset_bus(session, 20, 0, 2, &[file, Handle::Group]);
    }
    for count in [0, 3, 4, 256, 0x1000_0000, 0x4000_0000, u32::MAX] {
        reset_bus(session, 16, 0, count, &[Handle::Group]);
    }
    // The array of files has no end, or is not there.
    for count in 1..3 {
        let block = Block::words(&[16, 0, count]).flush();
        session.call(Call::request(Request::PCI_HOT_RESET, block));
        let block = Block::words(&[16, 0, count]).file(Handle::Group).flush();
        session.call(Call::request(Request::PCI_HOT_RESET, block));
    }
    reset_bus(session, 20, 0, 2, &[Handle::Group, Handle::Group]);
    mark(session);
    hot_reset(session);
    look(session);
}

/// The same by who has bound the device to an iommufd.
fn by_context(session: &mut Session<'_>) {
    wrong(session, 0, &[]);
    for file in [
        Handle::Iommufd,
        Handle::Device,
        Handle::Nobody,
        Handle::Closed,
    ] {
        for count in [1, 2] {
            reset_bus(session, 20, 0, count, &[file, file]);
        }
    }
    for count in [256, 0x4000_0000, u32::MAX] {
        reset_bus(session, 16, 0, count, &[]);
    }
    mark(session);
    hot_reset(session);
    look(session);
    reset_bus(session, 4096, 0, 0, &[]);
    // Its functions are known by what they are bound to, and not by what they are attached to.
    let block = Block::words(&[8, 0]);
    session.call(Call::request(Request::DETACH_IOMMUFD_PT, block));
    reset_bus(session, 12, 0, 0, &[]);
    session.attach();
}
