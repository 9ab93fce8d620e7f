// SPDX-License-Identifier: GPL-2.0

//! What the device says of itself, its regions and its interrupts.

use crate::abi::Request;
use crate::call::Block;
use crate::call::Call;
use crate::facts::Facts;
use crate::session::Session;

/// What flags have in them that are only given back.
const GARBAGE: u32 = 0xdead_beef;

pub(super) fn run(session: &mut Session<'_>, facts: &Facts) {
    for argsz in [0, 1, 8, 15, 16, 17, 20, 23, 24, 32, 36, 40, 4096, u32::MAX] {
        for flags in [0, GARBAGE] {
            let block = Block::words(&[argsz, flags]);
            session.call(Call::request(Request::GET_INFO, block));
        }
    }
    let regions = facts.regions.len() as u32;
    for index in (0..regions + 3).chain([100, 0x7fff_ffff, u32::MAX]) {
        for argsz in [31, 32, 33, 40, 48, 64, 4096, u32::MAX] {
            let block = Block::words(&[argsz, GARBAGE, index]);
            session.call(Call::request(Request::GET_REGION_INFO, block));
        }
    }
    for index in (0..7).chain([100, 0x7fff_ffff, u32::MAX]) {
        for argsz in [0, 15, 16, 17, 4096, u32::MAX] {
            let block = Block::words(&[argsz, GARBAGE, index]);
            session.call(Call::request(Request::GET_IRQ_INFO, block));
        }
    }
}
