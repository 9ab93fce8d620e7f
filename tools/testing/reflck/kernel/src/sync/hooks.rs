// SPDX-License-Identifier: GPL-2.0

//! Hooks at the points where a thread may wait, for tests that need one order of events.

use core::cell::RefCell;

/// A point that a thread has reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Point {
    /// About to wait on a condition variable, with the mutex held.
    Wait,
    /// Notified, and about to take the mutex again.
    Notified,
    /// In `fsleep()`.
    Sleep,
}

type Hook = Box<dyn FnMut(Point)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = RefCell::default();
}

/// Calls `hook` whenever this thread reaches a point, instead of the hook set before.
pub fn hook(hook: impl FnMut(Point) + 'static) {
    HOOK.set(Some(Box::new(hook)));
}

pub(super) fn is_set() -> bool {
    HOOK.with_borrow(Option::is_some)
}

pub(crate) fn reach(point: Point) {
    // A hook can reach points as well.
    if let Some(mut hook) = HOOK.take() {
        hook(point);
        HOOK.set(Some(hook));
    }
}
