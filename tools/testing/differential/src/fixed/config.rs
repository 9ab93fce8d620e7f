// SPDX-License-Identifier: GPL-2.0

//! Configuration space: all of it read at every width, aligned or not; every byte, word and double
//! word of it written with ones, zeroes and each bit alone, and read back.
//!
//! In brief, what follows the first 256 bytes is written with ones and zeroes only.
//!
//! On the way the device is disabled, put to sleep, woken and reset. What is left of it is of no use
//! before it is opened again.

use crate::call::At;
use crate::call::Bad;
use crate::call::Buffer;
use crate::call::Call;
use crate::facts::Facts;
use crate::session::Session;

/// As much configuration space as a conventional device has.
const CONVENTIONAL: u16 = 0x100;

pub(super) fn run(session: &mut Session<'_>, facts: &Facts, brief: bool) {
    let size = facts.config.len().max(64) as u64;
    session.call(Call::read(At::config(0), 4096));
    for width in [1, 2, 4] {
        for offset in 0..size + 8 {
            session.call(Call::read(At::config(offset), width));
        }
    }
    for offset in [
        0,
        1,
        2,
        3,
        5,
        0x0e,
        0x3d,
        0xfc,
        0xff,
        size - 2,
        size - 1,
        size,
    ] {
        for length in [0, 3, 5, 7, 8, 16, 33, 256] {
            session.call(Call::read(At::config(offset), length));
        }
    }
    edges(session, size);

    let mut write = |offset, width, bits| {
        session.call(Call::Patterns {
            offset,
            width,
            bits,
        })
    };
    // CAST: A few kilobytes.
    let size = size as u16;
    for width in [1, 2, 4] {
        for offset in (0..CONVENTIONAL).step_by(usize::from(width)) {
            write(offset, width, true);
        }
    }
    // Not aligned, in the header: parts of two registers at once.
    for offset in (1..0x40).step_by(4) {
        write(offset, 4, true);
    }
    if brief {
        for offset in (CONVENTIONAL..size).step_by(4) {
            write(offset, 4, false);
        }
    } else {
        for offset in CONVENTIONAL..size {
            write(offset, 1, true);
        }
    }
    super::whole_config(session, facts);
}

/// At the end, beyond it, and with memory that is not there.
fn edges(session: &mut Session<'_>, size: u64) {
    for offset in [
        size - 1,
        size,
        size + 1,
        0x1000,
        0x10_0000,
        u64::from(u32::MAX),
    ] {
        session.call(Call::write(At::config(offset), &[0; 4]));
        session.call(Call::read(At::config(offset), u32::MAX));
    }
    for to in [
        Buffer::Bad(Bad::Null),
        Buffer::Bad(Bad::Guard),
        Buffer::Bad(Bad::Kernel),
        Buffer::Short(1),
        Buffer::Short(3),
        Buffer::Short(6),
    ] {
        for length in [0, 1, 4, 8] {
            session.call(Call::Read {
                at: At::config(0),
                length,
                to,
            });
            session.call(Call::Write {
                at: At::config(0x3c),
                bytes: vec![0; length as usize],
                from: to,
            });
        }
    }
}
