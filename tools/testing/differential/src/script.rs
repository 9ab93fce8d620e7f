// SPDX-License-Identifier: GPL-2.0

//! The fixed script of a place: everything that runs the driver's own code, right and wrong.

use anyhow::Result;
use raw::Pointer;

use crate::call::{requests_of_device, At, Block, Bytes, Call, Handle, Of, Request, To};
use crate::drivers;
use crate::session::{self, Mode, Session};
use crate::smoke;

const BAD: [Pointer; 3] = [Pointer::Null, Pointer::Guard, Pointer::Kernel];

/// The sizes of arguments of `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: room for 0 to many functions.
const SIZES: [u32; 10] = [0, 11, 12, 19, 20, 27, 28, 36, 4096, u32::MAX];

/// Runs the script on bound, closed functions. `brief` leaves out most orders of closing.
pub fn run(session: &mut Session<'_>, brief: bool) -> Result<()> {
    drivers::files_of_functions(session)?;
    match session.mode {
        Mode::Group => open_by_group(session),
        Mode::Cdev => open_by_character_device(session),
    }
    smoke::run(session)?;
    arguments(session);
    hot_reset_arguments(session);
    siblings(session);
    closing(session, brief);
    binding(session);
    Ok(())
}

/// The state of the functions after a call: in sysfs, and in their markers.
fn look(session: &mut Session<'_>) {
    for (number, device) in [Handle::DEVICE, Handle::SIBLING].into_iter().enumerate() {
        if number < session.functions.len() {
            // CAST: At most 1.
            session.call(Call::State(number as u8));
        }
        if session.is_open(device) {
            smoke::read_scratch(session, device);
        }
    }
}

fn mark(session: &mut Session<'_>) {
    for device in [Handle::DEVICE, Handle::SIBLING] {
        if session.is_open(device) {
            let enable = Call::Write(device, At::config(4), Bytes(vec![3, 0]));
            session.call(enable);
            smoke::write_scratch(session, device, 0x55);
        }
    }
}

/// Every mistake on the way to a device through its group. Leaves the device open.
fn open_by_group(session: &mut Session<'_>) {
    let group = Handle::Group(0);
    session.call(Call::Open(Handle::Container));
    session.call(Call::Open(group));
    session.get_device(0);
    for file in [Handle::Null, Handle::Closed, group, Handle::Container] {
        let block = Block::default().file(file);
        session.call(Call::block(group, Request::GROUP_SET_CONTAINER, block));
    }
    session.enter_container(group);
    let name =
        |session: &Session<'_>, rest: &str| format!("{}{rest}\0", session.functions[0].bdf());
    for name in [
        "\0".to_owned(),
        "0000:00:00.0\0".to_owned(),
        name(session, " vf_token=nonsense"),
        name(session, " vf_token=2ab74924-c335-45f4-9b16-8569e5b08258"),
        name(session, " nonsense"),
    ] {
        let block = Block::default().raw(name.as_bytes()).flush();
        session.call(Call::block(group, Request::GROUP_GET_DEVICE_FD, block));
    }
    for pointer in BAD {
        session.call(Call::pointer(group, Request::GROUP_GET_DEVICE_FD, pointer));
    }
    session.get_device(0);
    session.get_device(0);
    session.call(Call::pointer(group, Request::GROUP_UNSET_CONTAINER, Pointer::Null));
    session.ask(group, Request::GROUP_GET_STATUS, &[8, 0]);
    session.call(Call::Close(Handle::AGAIN));
}

/// Every mistake on the way to a device through its character device. Leaves the device open.
fn open_by_character_device(session: &mut Session<'_>) {
    session.call(Call::Open(Handle::Iommufd(0)));
    session.call(Call::Open(Handle::Iommufd(1)));
    session.call(Call::Open(Handle::DEVICE));
    for request in requests_of_device().filter(|request| *request != Request::BIND_IOMMUFD) {
        session.ask(Handle::DEVICE, request, &[64, 0, 0, 0]);
    }
    session.call(Call::Read(Handle::DEVICE, At::config(0), 4));

    for [argsz, flags] in [[0, 0], [15, 0], [16, 2], [16, u32::MAX], [4096, 0]] {
        let block = Block::words(&[argsz, flags]).file(Handle::Iommufd(0)).word(0);
        session.call(Call::device(Request::BIND_IOMMUFD, block));
        session.call(Call::Close(Handle::DEVICE));
        session.call(Call::Open(Handle::DEVICE));
    }
    for file in [Handle::Minus, Handle::Closed, Handle::Null, Handle::DEVICE] {
        session.call(Call::device(Request::BIND_IOMMUFD, session::bind(file)));
    }
    for pointer in BAD {
        session.call(Call::pointer(Handle::DEVICE, Request::BIND_IOMMUFD, pointer));
    }
    // A token that cannot be read, and no room for the ID: the device is bound and unbound again.
    let token = Block::words(&[24, 1]).file(Handle::Iommufd(0)).word(0).raw(&[0; 8]);
    session.call(Call::device(Request::BIND_IOMMUFD, token));
    let short = Block::words(&[16, 0]).file(Handle::Iommufd(0)).flush();
    session.call(Call::device(Request::BIND_IOMMUFD, short));

    session.call(Call::device(Request::BIND_IOMMUFD, session::bind(Handle::Iommufd(0))));
    // Bound already: the same file and another one, to the same context and to another one.
    session.call(Call::Open(Handle::AGAIN));
    for context in [Handle::Iommufd(0), Handle::Iommufd(1)] {
        session.call(Call::device(Request::BIND_IOMMUFD, session::bind(context)));
        session.call(Call::block(Handle::AGAIN, Request::BIND_IOMMUFD, session::bind(context)));
    }
    session.call(Call::Close(Handle::AGAIN));
    attachments(session);
}

fn attachments(session: &mut Session<'_>) {
    let attach = |session: &mut Session<'_>, words: &[u32]| {
        session.call(Call::device(Request::ATTACH_IOMMUFD_PT, Block::words(words)));
    };
    let detach = |session: &mut Session<'_>, words: &[u32]| {
        session.call(Call::device(Request::DETACH_IOMMUFD_PT, Block::words(words)));
    };
    session.allocate(0);
    let ioas = session.ioas[0];
    attach(session, &[12, 0, ioas]);
    // Another address space in place of the first.
    session.allocate(0);
    let other = session.ioas[0];
    attach(session, &[12, 0, other]);
    for id in [0, other + 100, u32::MAX] {
        attach(session, &[12, 0, id]);
    }
    // Flag 1: the PASID that follows.
    for flags in [1, 2, 1 << 31] {
        for argsz in [8, 12, 16] {
            attach(session, &[argsz, flags, ioas, 1]);
            detach(session, &[argsz, flags, 1]);
        }
    }
    attach(session, &[11, 0, ioas]);
    detach(session, &[7, 0]);
    for _ in 0..2 {
        detach(session, &[8, 0]);
    }
    let short = Block::words(&[12, 0]).flush();
    session.call(Call::device(Request::ATTACH_IOMMUFD_PT, short));
    attach(session, &[12, 0, ioas]);
}

/// Every request, known or not, once each with a wrong size, flags and pointer.
fn arguments(session: &mut Session<'_>) {
    let is_kept =
        |request: &Request| ![Request::RESET, Request::DETACH_IOMMUFD_PT].contains(request);
    for request in requests_of_device().filter(is_kept) {
        let count = u32::from(request == Request::HOT_RESET && session.mode == Mode::Cdev);
        for words in [[0, 0], [7, 0], [64, u32::MAX]] {
            let block = Block::words(&words).word(count).raw(&[0; 32]);
            session.call(Call::device(request, block));
        }
        for pointer in BAD {
            session.call(Call::pointer(Handle::DEVICE, request, pointer));
        }
        session.ask(Handle::Null, request, &[64, 0, 0, 0]);
    }
}

fn hot_reset(session: &mut Session<'_>, argsz: u32, flags: u32, count: u32, files: &[Handle]) {
    let block = Block::words(&[argsz, flags, count]);
    let block = files.iter().fold(block, |block, file| block.file(*file));
    session.call(Call::device(Request::HOT_RESET, block));
}

fn info(session: &mut Session<'_>, argsz: u32) {
    session.ask(Handle::DEVICE, Request::HOT_RESET_INFO, &[argsz, u32::MAX]);
}

fn hot_reset_arguments(session: &mut Session<'_>) {
    for argsz in SIZES {
        info(session, argsz);
        // The argument claims room behind the end of memory.
        for words in [&[argsz, 0, 0][..], &[argsz, 0, 0, 0]] {
            let block = Block::words(words).flush();
            session.call(Call::device(Request::HOT_RESET_INFO, block));
        }
    }
    let files: &[Handle] = match session.mode {
        Mode::Group => &[Handle::Group(0)],
        Mode::Cdev => &[],
    };
    let count = files.len() as u32;
    for [argsz, flags] in [[0, 0], [11, 0], [16, 1], [16, 0x8000_0000], [16, u32::MAX]] {
        hot_reset(session, argsz, flags, count, files);
    }
    for file in [Handle::Minus, Handle::Closed, Handle::Null, Handle::DEVICE, Handle::Iommufd(0)] {
        hot_reset(session, 16, 0, 1, &[file]);
        hot_reset(session, 20, 0, 2, &[Handle::Group(0), file]);
        hot_reset(session, 20, 0, 2, &[file, Handle::Group(0)]);
    }
    for other in [1 - count, 3, 256, 0x4000_0000, u32::MAX] {
        hot_reset(session, 16, 0, other, files);
    }
    // The array of files is not there, or ends early.
    for count in 1..3 {
        let block = Block::words(&[16, 0, count]);
        session.call(Call::device(Request::HOT_RESET, block.clone().flush()));
        let block = block.file(Handle::Group(0)).flush();
        session.call(Call::device(Request::HOT_RESET, block));
    }
}

/// A correct hot reset by the owner of everything that is open.
pub fn right_hot_reset(session: &mut Session<'_>) {
    match (session.mode, session.group(1)) {
        (Mode::Cdev, _) => hot_reset(session, 12, 0, 0, &[]),
        (Mode::Group, Handle::Group(1)) if session.is_open(Handle::Group(1)) => {
            hot_reset(session, 20, 0, 2, &[Handle::Group(1), Handle::Group(0)]);
        }
        (Mode::Group, _) => hot_reset(session, 16, 0, 1, &[Handle::Group(0)]),
    }
}

/// A hot reset of the bus, by the user of the device, in each state of its sibling.
fn siblings(session: &mut Session<'_>) {
    let check = |session: &mut Session<'_>| {
        info(session, 4096);
        mark(session);
        right_hot_reset(session);
        look(session);
    };
    check(session);
    if session.functions.len() < 2 {
        return;
    }
    session.open(Handle::SIBLING);
    check(session);
    // Functions that sleep are reset as well. D3hot ends by that, and the feature does not.
    for by_feature in [false, true] {
        for device in [Handle::DEVICE, Handle::SIBLING] {
            smoke::sleep(session, device, by_feature);
        }
        right_hot_reset(session);
        for device in [Handle::DEVICE, Handle::SIBLING].into_iter().filter(|_| by_feature) {
            session.call(Call::Suspended(device.function()));
        }
        look(session);
        for device in [Handle::DEVICE, Handle::SIBLING] {
            smoke::wake(session, device);
        }
        mark(session);
        look(session);
    }
    // Not all of the groups.
    if session.mode == Mode::Group {
        hot_reset(session, 16, 0, 1, &[session.group(1)]);
    }
    session.call(Call::Close(Handle::SIBLING));
    check(session);
    if session.mode == Mode::Cdev {
        // Another user has the sibling, by a context of its own.
        session.open_cdev(Handle::SIBLING, 1);
        check(session);
        session.ask(Handle::SIBLING, Request::DETACH_IOMMUFD_PT, &[8, 0]);
        check(session);
        session.call(Call::Close(Handle::SIBLING));
        session.call(Call::Close(Handle::Iommufd(1)));
    }
    for to in [To::None, To::Stub, To::Driver] {
        session.call(Call::Bind(1, to));
        check(session);
    }
}

/// Files are closed in every order; a second file keeps the device open.
fn closing(session: &mut Session<'_>, brief: bool) {
    let files = match session.mode {
        Mode::Group => [Handle::DEVICE, Handle::Group(0), Handle::Container],
        Mode::Cdev => [Handle::DEVICE, Handle::Iommufd(0), Handle::AGAIN],
    };
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2], [0, 2, 1], [2, 0, 1]];
    for (number, order) in orders.into_iter().enumerate().take(if brief { 3 } else { 6 }) {
        session.call(Call::CloseAll);
        look(session);
        session.open(Handle::DEVICE);
        mark(session);
        match number {
            1 if session.mode == Mode::Group => session.get_device(0),
            // Not bound, it does not count as a user.
            1 => _ = session.call(Call::Open(Handle::AGAIN)),
            _ => {}
        }
        if number == 2 {
            session.open(Handle::SIBLING);
            mark(session);
        }
        for file in order {
            session.call(Call::Close(files[file]));
            look(session);
        }
        // The last user of the place, or one with a sibling that is still open.
        session.open(Handle::DEVICE);
        look(session);
    }
}

/// Binding and sysfs, while the device is open and while it is not.
fn binding(session: &mut Session<'_>) {
    let set = |session: &mut Session<'_>, of: Of, name: &'static str, value: &str| {
        session.call(Call::Set(of, name, value.to_owned()));
    };
    let address = session.functions[0].bdf().to_string();
    for open in [true, false] {
        session.call(Call::CloseAll);
        if open {
            session.open(Handle::DEVICE);
            mark(session);
        }
        set(session, Of::Driver, "bind", &address);
        set(session, Of::Function(0), "reset", "1");
        set(session, Of::Function(0), "reset", "0");
        set(session, Of::Function(0), "sriov_numvfs", "1");
        set(session, Of::Function(0), "power/control", "nonsense");
        look(session);
    }
    // A dirty function is unbound, and bound again.
    session.call(Call::Bind(0, To::None));
    look(session);
    session.open(Handle::DEVICE);
    session.call(Call::CloseAll);
    set(session, Of::Driver, "unbind", &address);
    session.call(Call::Bind(0, To::Stub));
    look(session);
    session.call(Call::Bind(0, To::Driver));
    set(session, Of::Driver, "bind", &address);
    look(session);
}
