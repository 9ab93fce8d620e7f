// SPDX-License-Identifier: GPL-2.0

//! A small lockdep that panics if a thread takes a mutex while it holds another.
//!
//! The registry's lock and a reflck are never held together, nor are two reflcks, so there is no
//! order to check.

use super::backend::thread_local;
use core::cell::Cell;
use std::thread::panicking;

pub type Class = &'static str;

thread_local! {
    static HELD: Cell<Option<Class>> = Cell::default();
}

/// Returns the name of the mutex that this thread holds or waits for.
pub fn held() -> Option<Class> {
    HELD.with(Cell::get)
}

/// A mutex that this thread holds or waits for.
pub(super) struct Held(());

impl Held {
    pub(super) fn new(class: Class) -> Self {
        HELD.with(|held| {
            // Drops after a panic take locks as well.
            if let (Some(outer), false) = (held.get(), panicking()) {
                panic!("lock {class} is taken while {outer} is held");
            }
            held.set(Some(class));
        });

        Self(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|held| held.set(None));
    }
}
