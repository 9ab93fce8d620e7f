// SPDX-License-Identifier: GPL-2.0

//! Interrupts: every action with every kind of data, in ranges that exist and that do not; then each
//! kind of interrupt as a user would set it up, triggered by the user, and ioeventfds.

use crate::abi::ioeventfd;
use crate::abi::irq;
use crate::abi::region;
use crate::abi::Request;
use crate::call::At;
use crate::call::Block;
use crate::call::Call;
use crate::call::Handle;
use crate::facts::Facts;
use crate::session::Session;

pub(super) fn run(session: &mut Session<'_>, facts: &Facts) {
    for index in (0..irq::COUNT + 2).chain([u32::MAX]) {
        combinations(session, index, facts.irqs(index));
        // Whatever was set up.
        set(session, irq::TRIGGER | irq::NONE, index, 0, 0);
    }
    session.call(Call::Signals);
    intx(session);
    for index in [irq::MSI, irq::MSIX] {
        messages(session, index, facts.irqs(index));
    }
    exclusive(session);
    for index in [irq::ERR, irq::REQ] {
        single(session, index);
    }
    eventfds(session, facts);
}

fn header(argsz: u32, flags: u32, index: u32, start: u32, count: u32) -> Block {
    Block::words(&[argsz, flags, index, start, count])
}

fn set_block(session: &mut Session<'_>, block: Block) {
    session.call(Call::request(Request::SET_IRQS, block));
}

/// Without data.
fn set(session: &mut Session<'_>, flags: u32, index: u32, start: u32, count: u32) {
    set_block(session, header(20, flags, index, start, count));
}

/// With a truth value for each.
fn set_bools(session: &mut Session<'_>, action: u32, index: u32, start: u32, bools: &[u8]) {
    let count = bools.len() as u32;
    let header = header(20 + count, action | irq::BOOL, index, start, count);
    set_block(session, header.raw(bools));
}

/// With a file for each.
fn set_files(session: &mut Session<'_>, action: u32, index: u32, start: u32, files: &[Handle]) {
    let count = files.len() as u32;
    let header = header(20 + 4 * count, action | irq::EVENTFD, index, start, count);
    let block = files.iter().fold(header, |block, &file| block.file(file));
    set_block(session, block);
}

fn combinations(session: &mut Session<'_>, index: u32, count: u32) {
    let ranges = [
        (0, 0),
        (0, 1),
        (1, 1),
        (0, count),
        (count, 0),
        (count.saturating_sub(1), 1),
        (count.saturating_sub(1), 2),
        (0, count + 1),
        (1, u32::MAX),
        (u32::MAX, 1),
        (0, u32::MAX),
        (5, u32::MAX - 5),
    ];
    let actions = [
        irq::MASK,
        irq::UNMASK,
        irq::TRIGGER,
        0,
        irq::MASK | irq::UNMASK,
        irq::MASK | irq::UNMASK | irq::TRIGGER,
    ];
    for action in actions {
        for data in [
            irq::NONE,
            irq::BOOL,
            irq::EVENTFD,
            0,
            irq::NONE | irq::BOOL,
            7,
        ] {
            for (start, count) in ranges {
                // As many as there may be: truth values of 0 and files of -1, which do nothing.
                let bytes = match data {
                    irq::BOOL => vec![0; 128],
                    irq::EVENTFD => vec![0xff; 512],
                    _ => Vec::new(),
                };
                let argsz = 20 + bytes.len() as u32;
                let header = header(argsz, action | data, index, start, count);
                set_block(session, header.raw(&bytes));
            }
        }
    }
    for flags in [0x40, 0x80, 0x8000_0000, 0x8000_0021, u32::MAX] {
        set(session, flags, index, 0, 1);
    }
    // Too short for its data, or with the end of memory in it.
    for argsz in [0, 19, 20, 21, 23, 24] {
        for data in [irq::BOOL, irq::EVENTFD] {
            let block = header(argsz, irq::TRIGGER | data, index, 0, 1);
            set_block(session, block.clone().word(u32::MAX));
            set_block(session, block.flush());
        }
    }
}

fn intx(session: &mut Session<'_>) {
    const INDEX: u32 = irq::INTX;
    for action in [irq::MASK, irq::UNMASK, irq::TRIGGER] {
        set(session, action | irq::NONE, INDEX, 0, 1);
    }
    set_files(session, irq::TRIGGER, INDEX, 0, &[Handle::Closed]);
    set_files(session, irq::TRIGGER, INDEX, 0, &[Handle::Null]);
    set_files(session, irq::TRIGGER, INDEX, 0, &[Handle::Event(0)]);
    set(session, irq::TRIGGER | irq::NONE, INDEX, 0, 1);
    set_bools(session, irq::TRIGGER, INDEX, 0, &[1]);
    set_bools(session, irq::TRIGGER, INDEX, 0, &[0]);
    session.call(Call::Signals);
    for action in [irq::MASK, irq::MASK, irq::UNMASK, irq::UNMASK] {
        set(session, action | irq::NONE, INDEX, 0, 1);
        set_bools(session, action, INDEX, 0, &[1]);
        set_bools(session, action, INDEX, 0, &[0]);
    }
    set_files(session, irq::MASK, INDEX, 0, &[Handle::Event(1)]);
    for file in [
        Handle::Event(1),
        Handle::Event(1),
        Handle::Event(2),
        Handle::Null,
        Handle::Nobody,
        Handle::Nobody,
    ] {
        set_files(session, irq::UNMASK, INDEX, 0, &[file]);
        session.call(Call::Signal(1));
    }
    // Another file for the same interrupt, and none.
    set_files(session, irq::TRIGGER, INDEX, 0, &[Handle::Event(3)]);
    set(session, irq::TRIGGER | irq::NONE, INDEX, 0, 1);
    session.call(Call::Signals);
    set_files(session, irq::TRIGGER, INDEX, 0, &[Handle::Nobody]);
    set(session, irq::TRIGGER | irq::NONE, INDEX, 0, 1);
    set(session, irq::TRIGGER | irq::NONE, INDEX, 0, 0);
    set(session, irq::TRIGGER | irq::NONE, INDEX, 0, 0);
    session.call(Call::Signals);
}

fn messages(session: &mut Session<'_>, index: u32, count: u32) {
    let trigger = irq::TRIGGER | irq::NONE;
    set(session, trigger, index, 0, 1);
    for files in [
        &[Handle::Closed][..],
        &[Handle::Null],
        &[Handle::Event(0), Handle::Closed],
        &[Handle::Event(0)],
        &[Handle::Event(1), Handle::Event(2)],
        &[Handle::Event(1), Handle::Nobody],
        &[Handle::Nobody, Handle::Event(0), Handle::Event(0)],
        &[Handle::Nobody],
    ] {
        set_files(session, irq::TRIGGER, index, 0, files);
        for start in 0..3 {
            set(session, trigger, index, start, 1);
        }
        set(session, trigger, index, 0, 3);
        set_bools(session, irq::TRIGGER, index, 0, &[1, 0, 1]);
        session.call(Call::Signals);
    }
    // Others than the first ones, more than there were, and the last one.
    for start in [1, 2, 4, count.saturating_sub(1)] {
        set_files(session, irq::TRIGGER, index, start, &[Handle::Event(3)]);
        set(session, trigger, index, start, 1);
        session.call(Call::Signals);
        set_files(session, irq::TRIGGER, index, start, &[Handle::Nobody]);
    }
    for action in [irq::MASK, irq::UNMASK] {
        set(session, action | irq::NONE, index, 0, 1);
    }
    set(session, trigger, index, 0, 0);
    set(session, trigger, index, 0, 0);
    session.call(Call::Signals);
}

/// One kind of interrupt at a time.
fn exclusive(session: &mut Session<'_>) {
    let kinds = [irq::INTX, irq::MSI, irq::MSIX];
    for first in kinds {
        set_files(session, irq::TRIGGER, first, 0, &[Handle::Event(0)]);
        for second in kinds {
            set_files(session, irq::TRIGGER, second, 0, &[Handle::Event(1)]);
        }
        for second in kinds {
            if second != first {
                set(session, irq::TRIGGER | irq::NONE, second, 0, 0);
            }
        }
        set(session, irq::TRIGGER | irq::NONE, first, 0, 0);
    }
}

fn single(session: &mut Session<'_>, index: u32) {
    for file in [
        Handle::Nobody,
        Handle::Closed,
        Handle::Null,
        Handle::Event(0),
        Handle::Event(1),
        Handle::Nobody,
    ] {
        set_files(session, irq::TRIGGER, index, 0, &[file]);
        set(session, irq::TRIGGER | irq::NONE, index, 0, 1);
        set_bools(session, irq::TRIGGER, index, 0, &[1]);
        set_bools(session, irq::TRIGGER, index, 0, &[0]);
        session.call(Call::Signals);
    }
    for action in [irq::MASK, irq::UNMASK] {
        set(session, action | irq::NONE, index, 0, 1);
    }
    set_files(session, irq::TRIGGER, index, 0, &[Handle::Event(2)]);
    set(session, irq::TRIGGER | irq::NONE, index, 0, 0);
    set(session, irq::TRIGGER | irq::NONE, index, 0, 0);
}

/// `VFIO_DEVICE_IOEVENTFD`: a write to the device when an eventfd is signalled.
fn eventfds(session: &mut Session<'_>, facts: &Facts) {
    let block = |flags: u32, at: At, data: u64, file: Handle| {
        // CAST: An offset in a file.
        Block::words(&[32, flags])
            .long(at.in_file() as u64)
            .long(data)
            .file(file)
            .word(0)
    };
    let call = |session: &mut Session<'_>, block: Block| {
        session.call(Call::request(Request::IOEVENTFD, block));
    };
    const DATA: u64 = 0x1122_3344_5566_7788;

    super::enable_memory(session, true);
    for part in session.profile().scratch {
        let at = At::new(part.region, part.offset);
        for width in ioeventfd::WIDTHS {
            if u64::from(width) > part.length {
                continue;
            }
            super::regions::clear(session, part);
            call(session, block(width, at, DATA, Handle::Event(0)));
            session.call(Call::Signal(0));
            session.call(Call::read(at, part.length.min(8) as u32));
            call(session, block(width, at, DATA, Handle::Event(0)));
            call(session, block(width, at, DATA, Handle::Event(1)));
            call(session, block(width, at, DATA + 1, Handle::Event(0)));
            super::enable_memory(session, false);
            session.call(Call::Signal(0));
            super::enable_memory(session, true);
            session.call(Call::read(at, part.length.min(8) as u32));
            for data in [DATA, DATA, DATA + 1] {
                call(session, block(width, at, data, Handle::Nobody));
            }
        }
        for flags in [0, 3, 5, 15, 16, 17, u32::MAX] {
            call(session, block(flags, at, DATA, Handle::Event(0)));
        }
        for file in [Handle::Closed, Handle::Null, Handle::Device] {
            call(session, block(1, at, DATA, file));
        }
        let mut negative = block(1, at, DATA, Handle::Nobody);
        negative.files.clear();
        negative.bytes[24..28].copy_from_slice(&(-2_i32).to_ne_bytes());
        call(session, negative);
        for length in [27, 24, 16] {
            let mut short = block(1, at, DATA, Handle::Event(0)).flush();
            short.files.clear();
            short.bytes.truncate(length);
            call(session, short);
        }
        super::regions::clear(session, part);
    }
    for index in (0..=region::VGA).chain([9, 100]) {
        let size = facts.region(index).size;
        for offset in [size.wrapping_sub(2), size, size + 4096, u64::MAX] {
            call(
                session,
                block(4, At::new(index, offset), DATA, Handle::Event(0)),
            );
        }
        call(session, block(4, At::new(index, 0), DATA, Handle::Nobody));
    }
    if let Some(table) = facts.msix {
        for offset in [table.offset, table.offset + table.size - 1] {
            let at = At::new(table.region, offset);
            call(session, block(1, at, DATA, Handle::Event(0)));
        }
    }
    // As many as are allowed, and one more.
    if let Some(part) = session.profile().scratch.first() {
        let at = At::new(part.region, part.offset);
        for _ in 0..2 {
            for data in 0..5 {
                call(session, block(1, at, data, Handle::Event(1)));
            }
        }
        for data in 0..6 {
            call(session, block(1, at, data, Handle::Nobody));
        }
        super::regions::clear(session, part);
    }
}
