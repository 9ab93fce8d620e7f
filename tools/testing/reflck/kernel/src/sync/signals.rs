// SPDX-License-Identifier: GPL-2.0

//! Signals, which end interruptible waits.

use super::backend::thread_local;
use core::cell::Cell;

thread_local! {
    static PENDING: Cell<bool> = Cell::default();
}

/// Makes the next interruptible wait of this thread end by a signal.
pub fn send() {
    PENDING.with(|pending| pending.set(true));
}

/// Returns whether there is a signal. It is handled after that.
pub(super) fn take() -> bool {
    PENDING.with(|pending| pending.replace(false))
}
