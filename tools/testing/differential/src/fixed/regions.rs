// SPDX-License-Identifier: GPL-2.0

//! The other regions: BARs, ROM and VGA, read at every width and alignment, at their ends and beyond;
//! written where that does no harm; mapped, rightly and wrongly.

use crate::abi::region;
use crate::call::Access;
use crate::call::At;
use crate::call::Bad;
use crate::call::Buffer;
use crate::call::Call;
use crate::devices::Part;
use crate::facts::Facts;
use crate::facts::Region;
use crate::session::Session;

/// What is written: no byte of it twice.
const PATTERN: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

/// Where VGA has memory and ports, and where not.
const VGA: [u64; 9] = [
    0, 0x3b0, 0x3ba, 0x3bc, 0x3c0, 0x3dc, 0xa0000, 0xbfffc, 0xc0000,
];

pub(super) fn run(session: &mut Session<'_>, facts: &Facts) {
    super::enable_memory(session, true);
    scratch(session);
    for index in (0..=region::ROM).chain([9, 10, 100, 0x7f_ffff, 0xff_ffff]) {
        reads(session, index, facts.region(index));
    }
    for offset in VGA {
        for length in [1, 2, 4, 8] {
            session.call(Call::read(At::new(region::VGA, offset), length));
        }
    }
    for offset in [0, 4] {
        session.call(Call::write(At::new(region::ROM, offset), &PATTERN));
    }
    table(session, facts);
    for index in (0..=region::VGA).chain([9, 10, 0x7f_ffff]) {
        mappings(session, index, facts);
    }
    gone(session, facts);
}

fn reads(session: &mut Session<'_>, index: u32, region: Region) {
    let size = region.size;
    for length in [1, 2, 4, 8] {
        for offset in 0..9 {
            session.call(Call::read(At::new(index, offset), length));
        }
        for before in 0..9 {
            let offset = size.saturating_sub(before);
            session.call(Call::read(At::new(index, offset), length));
        }
    }
    for offset in [size + 1, size + 0x1000, (1 << region::SHIFT) - 1] {
        session.call(Call::read(At::new(index, offset), 4));
    }
    for (offset, length) in [
        (0, 0),
        (0, 3),
        (1, 7),
        (3, 29),
        (0, 4096),
        (size / 2, 256),
        (size.saturating_sub(256), 256),
        (size.saturating_sub(100), 4096),
        (size.saturating_sub(4), u32::MAX),
    ] {
        session.call(Call::read(At::new(index, offset), length));
    }
    for to in [
        Buffer::Bad(Bad::Null),
        Buffer::Bad(Bad::Guard),
        Buffer::Bad(Bad::Kernel),
        Buffer::Short(6),
    ] {
        session.call(Call::Read {
            at: At::new(index, 0),
            length: 16,
            to,
        });
    }
    // All of what is small.
    if (1..=0x1_0000).contains(&size) && index == region::ROM {
        session.call(Call::read(At::new(index, 0), size as u32));
    }
}

/// Every width at every alignment.
fn scratch(session: &mut Session<'_>) {
    clear_all(session);
    for part in session.profile().scratch {
        clear(session, part);
        for width in [1, 2, 4, 8] {
            for offset in 0..8 {
                if offset + width as u64 > part.length {
                    continue;
                }
                let at = At::new(part.region, part.offset + offset);
                session.call(Call::write(at, &PATTERN[..width]));
                let start = At::new(part.region, part.offset);
                session.call(Call::read(start, part.length.min(16) as u32));
                clear(session, part);
            }
        }
        let at = At::new(part.region, part.offset);
        for from in [
            Buffer::Bad(Bad::Null),
            Buffer::Bad(Bad::Guard),
            Buffer::Bad(Bad::Kernel),
            Buffer::Short(2),
        ] {
            session.call(Call::Write {
                at,
                bytes: vec![0; part.length.min(8) as usize],
                from,
            });
        }
        session.call(Call::write(at, &[]));
        clear(session, part);
    }
}

/// Writes zeroes to where a part of a region begins.
pub(super) fn clear(session: &mut Session<'_>, part: &Part) {
    let zeroes = vec![0; part.length.min(64) as usize];
    session.call(Call::write(At::new(part.region, part.offset), &zeroes));
}

/// Writes zeroes to all of the scratch memory: what an earlier run has left there, it does not forget.
pub(crate) fn clear_all(session: &mut Session<'_>) {
    for part in session.profile().scratch {
        let zeroes = vec![0; part.length as usize];
        session.call(Call::write(At::new(part.region, part.offset), &zeroes));
    }
}

/// The MSI-X table, which vfio keeps to itself: what is written is dropped, what is read is ones.
fn table(session: &mut Session<'_>, facts: &Facts) {
    let Some(table) = facts.msix else { return };
    for offset in [0, 1, 4, 12, table.size - 8] {
        let at = At::new(table.region, table.offset + offset);
        for width in [1, 2, 4, 8] {
            session.call(Call::write(at, &PATTERN[..width]));
            session.call(Call::read(at, width as u32));
        }
    }
    for offset in [
        table.offset.saturating_sub(6),
        table.offset + table.size - 6,
    ] {
        session.call(Call::read(At::new(table.region, offset), 12));
    }
}

fn mappings(session: &mut Session<'_>, index: u32, facts: &Facts) {
    const PAGE: u64 = 4096;
    let size = facts.region(index).size.next_multiple_of(PAGE);
    // What the kernel has put into the MSI-X table can be seen in a mapping: its vectors are not the
    // same each time.
    let shows_table = facts.msix.is_some_and(|table| table.region == index);
    for (offset, length) in [
        (0, PAGE),
        (0, 1),
        (0, size),
        (0, size + PAGE),
        (size, PAGE),
        (size.saturating_sub(PAGE), PAGE),
        (size.saturating_sub(PAGE), 2 * PAGE),
        (1, PAGE),
        (PAGE / 2, PAGE),
        (0, 1 << 30),
    ] {
        session.call(Call::Map {
            at: At::new(index, offset),
            length,
            access: Access::ALL,
        });
    }
    for access in [
        Access {
            shared: false,
            ..Access::ALL
        },
        Access {
            write: false,
            ..Access::ALL
        },
        Access {
            read: false,
            ..Access::ALL
        },
        Access {
            read: false,
            write: false,
            ..Access::ALL
        },
    ] {
        session.call(Call::Map {
            at: At::new(index, 0),
            length: PAGE,
            access,
        });
        if !shows_table {
            session.call(Call::Load {
                offset: 0,
                length: 4,
            });
        }
    }
    session.call(Call::Unmap);
}

/// What a mapping, a read and a write come to while memory is off, the device asleep, or after a reset
/// of it.
fn gone(session: &mut Session<'_>, facts: &Facts) {
    for part in session.profile().scratch {
        let page = part.offset & !0xfff;
        let offset = part.offset - page;
        let at = At::new(part.region, part.offset);
        let width = part.length.min(8) as usize;
        let look = |session: &mut Session<'_>| {
            session.call(Call::Store {
                offset,
                bytes: PATTERN[..width].to_vec(),
            });
            session.call(Call::Load {
                offset,
                length: width as u32,
            });
            session.call(Call::write(at, &PATTERN[..width]));
            session.call(Call::read(at, width as u32));
        };

        session.call(Call::Map {
            at: At::new(part.region, page),
            length: 4096,
            access: Access::ALL,
        });
        look(session);
        super::enable_memory(session, false);
        look(session);
        super::enable_memory(session, true);
        look(session);
        super::set_power(session, facts, 3);
        look(session);
        super::set_power(session, facts, 0);
        look(session);
        session.call(Call::Unmap);
        clear(session, part);
    }
}
