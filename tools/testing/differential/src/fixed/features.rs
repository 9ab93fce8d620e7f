// SPDX-License-Identifier: GPL-2.0

//! `VFIO_DEVICE_FEATURE`: every number probed, got and set with too little, enough and too much data;
//! low power as a user would use it; dma-bufs, right and wrong.

use crate::abi::feature;
use crate::abi::Request;
use crate::call::At;
use crate::call::Block;
use crate::call::Call;
use crate::call::Handle;
use crate::facts::Facts;
use crate::session::Session;
use crate::session::WAKEUP;

/// All that there are, and some more.
const NUMBERS: std::ops::RangeInclusive<u32> = 0..=20;

pub(super) fn run(session: &mut Session<'_>, facts: &Facts) {
    for number in NUMBERS.chain([100, 0xffff]) {
        operations(session, number);
    }
    low_power(session, facts);
    dma_bufs(session, facts);
}

fn call(session: &mut Session<'_>, block: Block) -> bool {
    session
        .call(Call::request(Request::FEATURE, block))
        .succeeded()
}

fn set(session: &mut Session<'_>, number: u32) -> bool {
    call(session, Block::words(&[8, feature::SET | number]))
}

fn operations(session: &mut Session<'_>, number: u32) {
    let both = feature::GET | feature::SET;
    for operation in [
        0,
        feature::PROBE,
        feature::PROBE | feature::GET,
        feature::PROBE | feature::SET,
        feature::PROBE | both,
        both,
        feature::GET,
        feature::SET,
        feature::GET | (1 << 19),
        feature::PROBE | (1 << 31),
    ] {
        for size in [0, 1, 4, 8, 15, 16, 24, 40, 4088] {
            let block = Block::words(&[8 + size, operation | number]);
            // Nothing in it is a file or an address.
            let block = block.raw(&[0; 64]);
            let was_made = call(session, block);
            if was_made && operation & feature::SET != 0 {
                set(session, feature::LOW_POWER_EXIT);
            }
        }
    }
    for size in [0, 4, 8] {
        let block = Block::words(&[8 + 16, feature::SET | number]);
        let block = block.raw(&vec![0; size]).flush();
        if call(session, block) {
            set(session, feature::LOW_POWER_EXIT);
        }
    }
}

fn low_power(session: &mut Session<'_>, facts: &Facts) {
    let with_wakeup = |session: &mut Session<'_>, file: Handle| {
        let flags = feature::SET | feature::LOW_POWER_ENTRY_WITH_WAKEUP;
        let block = Block::words(&[16, flags]).file(file).word(0);
        call(session, block)
    };

    super::enable_memory(session, true);
    set(session, feature::LOW_POWER_EXIT);
    if set(session, feature::LOW_POWER_ENTRY) {
        session.call(Call::Suspended);
    }
    session.call(Call::read(At::config(0), 64));
    for part in session.profile().scratch {
        let at = At::new(part.region, part.offset);
        session.call(Call::read(at, part.length.min(8) as u32));
    }
    set(session, feature::LOW_POWER_ENTRY);
    with_wakeup(session, WAKEUP);
    set(session, feature::LOW_POWER_EXIT);
    set(session, feature::LOW_POWER_EXIT);

    for file in [Handle::Nobody, Handle::Closed, Handle::Null, WAKEUP] {
        if with_wakeup(session, file) {
            session.call(Call::Suspended);
        }
        session.call(Call::Signals);
        session.call(Call::read(At::config(0), 4));
        session.call(Call::Signals);
        session.call(Call::read(At::config(0), 64));
        session.call(Call::Signals);
        set(session, feature::LOW_POWER_EXIT);
    }
    // Asleep already, by its own register.
    super::set_power(session, facts, 3);
    set(session, feature::LOW_POWER_ENTRY);
    session.call(Call::read(At::config(0), 64));
    set(session, feature::LOW_POWER_EXIT);
    super::set_power(session, facts, 0);
    super::whole_config(session, facts);
}

/// Of a kernel that has them.
fn dma_bufs(session: &mut Session<'_>, facts: &Facts) {
    let block = |region: u32, flags: u32, ranges: &[(u64, u64)]| {
        let count = ranges.len() as u32;
        let size = 8 + 16 + 16 * count;
        let flags_of_open = 0o2;
        let block = Block::words(&[size, feature::GET | feature::DMA_BUF]);
        let block = [region, flags_of_open, flags, count]
            .into_iter()
            .fold(block, Block::word);
        ranges.iter().fold(block, |block, &(offset, length)| {
            block.long(offset).long(length)
        })
    };
    const PAGE: u64 = 4096;
    for index in 0..10 {
        let size = facts.region(index).size;
        for ranges in [
            &[][..],
            &[(0, PAGE)],
            &[(0, 0)],
            &[(1, PAGE)],
            &[(0, PAGE - 1)],
            &[(size, PAGE)],
            &[(0, u64::MAX)],
            &[(u64::MAX, PAGE)],
            &[(0, PAGE), (0, PAGE)],
        ] {
            call(session, block(index, 0, ranges));
        }
        call(session, block(index, 1, &[(0, PAGE)]));
        call(session, block(index, 0, &[(0, PAGE)]).flush());
    }
}
