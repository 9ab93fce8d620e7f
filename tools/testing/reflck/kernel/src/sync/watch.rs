// SPDX-License-Identifier: GPL-2.0

//! What a thread does when it waits on a [`CondVar`](super::CondVar), told to a test that wants
//! threads to come in one order and no other.

use super::backend::thread_local;
use core::cell::RefCell;

type Hook = Box<dyn FnMut(Wait)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = RefCell::default();
}

/// How far a wait has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// It begins. The lock is held: whoever takes it next finds the thread waiting.
    Begins,
    /// It was notified. The lock is not held: others can take it before the thread does.
    IsNotified,
}

/// From now on calls `hook` when this thread waits, which goes on when that returns.
pub fn watch_waits(hook: impl FnMut(Wait) + 'static) {
    HOOK.with(|cell| *cell.borrow_mut() = Some(Box::new(hook)));
}

/// Returns whether anybody wants to be told of this thread's waits.
pub(super) fn is_watched() -> bool {
    HOOK.with(|cell| cell.borrow().is_some())
}

/// Tells who wants to be told.
pub(super) fn tell(wait: Wait) {
    HOOK.with(|cell| {
        if let Some(hook) = &mut *cell.borrow_mut() {
            hook(wait);
        }
    });
}
