// SPDX-License-Identifier: GPL-2.0

//! Delays before locks, so that threads of a stress test meet where they would meet seldom.

use core::cell::Cell;
use std::{
    thread::sleep,
    time::Duration, //
};

thread_local! {
    /// State of the pseudo-random numbers. There are no delays as long as it is 0.
    static STATE: Cell<u32> = const { Cell::new(0) };
}

/// From now on delays this thread now and then before it takes a lock. `seed` is not 0.
pub fn shake(seed: u32) {
    STATE.set(seed);
}

/// Delays this thread, if it is its turn.
pub(super) fn pause() {
    let mut state = STATE.get();
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    STATE.set(state);

    if state % 4 == 1 {
        sleep(Duration::from_micros(20));
    }
}
