// SPDX-License-Identifier: GPL-2.0

//! Every request, known or not, with arguments of every size, unknown flags and pointers that are
//! none, on the device and on files that are no device.

use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_PROBE;

use crate::abi::Request;
use crate::call::Argument;
use crate::call::Bad;
use crate::call::Block;
use crate::call::Call;
use crate::call::Handle;
use crate::session::Mode;
use crate::session::Session;

/// Requests of other types and of other directions, which nobody knows.
const UNKNOWN: [u32; 12] = [
    0x0000_0000,
    0x0000_3b00,
    0x0000_3b63,
    0x0000_3bff,
    0x4000_3b6b,
    0x8000_3b6b,
    0xc000_3b6b,
    0x8018_3b6b,
    0x0000_3c6b,
    0x0000_5401,
    0xffff_3b6b,
    0xffff_ffff,
];

pub(super) fn run(session: &mut Session<'_>) {
    for request in Request::of_device().filter(|request| *request != Request::RESET) {
        sizes(session, request);
        pointers(session, request);
    }
    for number in UNKNOWN {
        let block = Block::words(&[16, 0, 0, 0]);
        session.call(Call::request(Request(number), block));
    }
    for request in Request::all() {
        wrong_files(session, request);
    }
    // What was detached on the way.
    if session.mode() == Mode::Cdev {
        session.attach();
    }
}

/// Words that do as little as possible, behind the size of the argument: no hot reset, which would
/// take its time, and no feature that is used.
fn words(session: &Session<'_>, request: Request, argsz: u32, flags: u32) -> Block {
    let flags = match request {
        Request::FEATURE => flags | VFIO_DEVICE_FEATURE_PROBE,
        _ => flags,
    };
    let count = match (request, session.mode()) {
        (Request::PCI_HOT_RESET, Mode::Cdev) => 1,
        _ => 0,
    };
    Block::words(&[argsz, flags, count, 0, 0, 0, 0, 0])
}

fn sizes(session: &mut Session<'_>, request: Request) {
    let minimum = request.layout().minimum;
    for argsz in [
        0,
        1,
        4,
        minimum.saturating_sub(1),
        minimum,
        minimum + 1,
        minimum + 8,
        4096,
        0x8000_0000,
        u32::MAX,
    ] {
        for flags in [0, 1, 0x40, 0x8000_0000, u32::MAX] {
            let block = words(session, request, argsz, flags);
            session.call(Call::request(request, block));
        }
    }
}

fn pointers(session: &mut Session<'_>, request: Request) {
    for argument in [
        Argument::Bad(Bad::Null),
        Argument::Bad(Bad::Guard),
        Argument::Bad(Bad::Kernel),
        Argument::Number(1),
        Argument::Number(u16::MAX),
    ] {
        session.call(Call::Ioctl {
            on: Handle::Device,
            request,
            argument,
        });
    }
    // Memory ends where the argument does, or within it.
    let minimum = request.layout().minimum;
    for argsz in [minimum, minimum + 4, 4096] {
        for length in [
            1,
            4,
            8,
            minimum as usize - 4,
            minimum as usize - 1,
            minimum as usize,
        ] {
            let mut block = words(session, request, argsz, 0).flush();
            block.bytes.truncate(length);
            session.call(Call::request(request, block));
        }
    }
}

fn wrong_files(session: &mut Session<'_>, request: Request) {
    let minimum = request.layout().minimum;
    let files: &[Handle] = match session.mode() {
        Mode::Group => &[Handle::Null, Handle::Group, Handle::Container],
        Mode::Cdev => &[Handle::Null, Handle::Iommufd],
    };
    for &on in files {
        let argument = match on {
            // The same number is another request there, which shall not be made.
            Handle::Container | Handle::Iommufd => Argument::Bad(Bad::Null),
            _ => Argument::Block(Block::words(&[minimum, 0, 0, 0])),
        };
        session.call(Call::Ioctl {
            on,
            request,
            argument,
        });
    }
    // Requests of other files, on the device.
    if !Request::of_device().any(|known| known == request) {
        let block = Block::words(&[minimum, 0, 0, 0]);
        session.call(Call::request(request, block));
    }
}
