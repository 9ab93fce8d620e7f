// SPDX-License-Identifier: GPL-2.0

//! A small lockdep: panics as soon as a thread takes a lock while it holds another, whether or not
//! it comes to a deadlock. The registry's lock and a reflck are never held together, and neither
//! are two reflcks, so there is no order to be kept.

use super::backend::thread_local;
use core::cell::Cell;
use std::thread::panicking;

pub type Class = &'static str;

thread_local! {
    static HELD: Cell<Option<Class>> = Cell::default();
}

/// Returns the name of the lock that this thread holds, or waits for.
pub fn held() -> Option<Class> {
    HELD.with(Cell::get)
}

/// Stands for the lock that this thread holds, or waits for.
pub(super) struct Held(());

impl Held {
    pub(super) fn new(class: Class) -> Self {
        HELD.with(|held| {
            // What is dropped after a panic takes locks too, and one panic is enough.
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
