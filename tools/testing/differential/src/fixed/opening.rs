// SPDX-License-Identifier: GPL-2.0

//! Opening the device: what can be asked before it is open, and all that is wrong on the way.

use crate::abi::Request;
use crate::call::Access;
use crate::call::Argument;
use crate::call::At;
use crate::call::Bad;
use crate::call::Block;
use crate::call::Call;
use crate::call::Handle;
use crate::session::Session;

const BADS: [Bad; 3] = [Bad::Null, Bad::Guard, Bad::Kernel];

fn group(request: Request, argument: Argument) -> Call {
    Call::Ioctl {
        on: Handle::Group,
        request,
        argument,
    }
}

/// Gets the device from its group, in the end.
pub(super) fn by_group(session: &mut Session<'_>) {
    let block = |block| Argument::Block(block);

    session.call(Call::Open(Handle::Container));
    session.call(Call::Open(Handle::Group));
    // It can be opened once.
    session.call(Call::Open(Handle::Group));
    for argsz in [0, 7, 8, 9, 4096, u32::MAX] {
        let status = Block::words(&[argsz, 0]);
        session.call(group(Request::GROUP_GET_STATUS, block(status)));
    }
    session.get_device();
    for file in [Handle::Null, Handle::Closed, Handle::Group, Handle::Nobody] {
        let container = Block::new().file(file);
        session.call(group(Request::GROUP_SET_CONTAINER, block(container)));
    }
    for bad in BADS {
        for request in [
            Request::GROUP_GET_STATUS,
            Request::GROUP_SET_CONTAINER,
            Request::GROUP_GET_DEVICE_FD,
        ] {
            session.call(group(request, Argument::Bad(bad)));
        }
    }
    session.call(group(Request::GROUP_UNSET_CONTAINER, Argument::Number(0)));
    session.enter_container();
    session.enter_container();
    for name in [
        &b"\0"[..],
        b"0000:00:00.0\0",
        b"no device\0",
        b"no device, and its name never ends",
    ] {
        let name = Block::new().raw(name).flush();
        session.call(group(Request::GROUP_GET_DEVICE_FD, block(name)));
    }
    let long = Block::new().raw(&[b'0'; 4096]);
    session.call(group(Request::GROUP_GET_DEVICE_FD, block(long)));
    session.get_device();
    // A device that is open can be got again: one more file.
    session.get_device();
    session.call(group(Request::GROUP_UNSET_CONTAINER, Argument::Number(0)));
    let status = Block::words(&[8, 0]);
    session.call(group(Request::GROUP_GET_STATUS, block(status)));
}

/// Binds the device to an iommufd, in the end, and attaches it.
pub(super) fn by_character_device(session: &mut Session<'_>) {
    session.call(Call::Open(Handle::Iommufd));
    session.call(Call::Open(Handle::Device));
    // Nothing can be asked of it before it is bound.
    for request in Request::of_device().filter(|request| *request != Request::BIND_IOMMUFD) {
        session.call(Call::request(request, Block::words(&[64, 0, 0, 0])));
    }
    session.call(Call::read(At::config(0), 4));
    session.call(Call::write(At::config(4), &[0, 0]));
    session.call(Call::Map {
        at: At::new(0, 0),
        length: 4096,
        access: Access::ALL,
    });

    for argsz in [0, 4, 15, 20, 24, 32, 4096, 4097, u32::MAX] {
        let block = Block::words(&[argsz, 2]).file(Handle::Iommufd).word(0);
        session.call(Call::request(Request::BIND_IOMMUFD, block));
    }
    for flags in [2, 4, 1 << 31, u32::MAX] {
        let block = Block::words(&[16, flags]).file(Handle::Iommufd).word(0);
        session.call(Call::request(Request::BIND_IOMMUFD, block));
    }
    for file in [
        Handle::Nobody,
        Handle::Closed,
        Handle::Null,
        Handle::Device,
        Handle::Event(0),
    ] {
        let block = Block::words(&[16, 0]).file(file).word(0);
        session.call(Call::request(Request::BIND_IOMMUFD, block));
    }
    for bad in BADS {
        session.call(Call::Ioctl {
            on: Handle::Device,
            request: Request::BIND_IOMMUFD,
            argument: Argument::Bad(bad),
        });
    }
    // A token that is nowhere; and no place for the ID: it is bound, and unbound again.
    let token = Block::words(&[24, 1]).file(Handle::Iommufd).word(0).long(0);
    session.call(Call::request(Request::BIND_IOMMUFD, token));
    let short = Block::words(&[16, 0]).file(Handle::Iommufd).flush();
    session.call(Call::request(Request::BIND_IOMMUFD, short));

    session.bind_iommufd();
    session.bind_iommufd();
    session.attach();
    attachments(session);
}

fn attachments(session: &mut Session<'_>) {
    let ioas = session.ioas();
    let detach = |session: &mut Session<'_>, words: &[u32]| {
        let block = Block::words(words);
        session.call(Call::request(Request::DETACH_IOMMUFD_PT, block));
    };
    let attach = |session: &mut Session<'_>, words: &[u32]| {
        let block = Block::words(words);
        session.call(Call::request(Request::ATTACH_IOMMUFD_PT, block));
    };

    attach(session, &[12, 0, ioas]);
    for argsz in [0, 4, 7, 11, 16, 4096, u32::MAX] {
        attach(session, &[argsz, 0, ioas, 0]);
    }
    for id in [0, ioas + 1, ioas + 100, u32::MAX] {
        attach(session, &[12, 0, id]);
    }
    for flags in [1, 2, 3, 1 << 31] {
        for argsz in [8, 12, 16] {
            attach(session, &[argsz, flags, ioas, 1]);
            detach(session, &[argsz, flags, 1]);
        }
    }
    for argsz in [0, 4, 7] {
        detach(session, &[argsz, 0]);
    }
    detach(session, &[8, 0]);
    detach(session, &[8, 0]);
    let block = Block::words(&[12, 0]).flush();
    session.call(Call::request(Request::ATTACH_IOMMUFD_PT, block));
    attach(session, &[12, 0, ioas]);
}
