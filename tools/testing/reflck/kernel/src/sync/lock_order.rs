// SPDX-License-Identifier: GPL-2.0

//! A small lockdep: panics as soon as two lock classes have been taken in both orders, or a class
//! inside itself, whether or not it comes to a deadlock.

use super::backend::thread_local;
use core::cell::RefCell;
use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        PoisonError, //
    },
    thread::panicking,
};

type Class = &'static str;

/// Every pair of classes of which the first was held while the second was taken.
static ORDER: Mutex<BTreeSet<(Class, Class)>> = Mutex::new(BTreeSet::new());

thread_local! {
    static HELD: RefCell<Vec<Class>> = RefCell::default();
}

/// Stands for a lock that this thread holds, or waits for.
pub(super) struct Held(Class);

impl Held {
    pub(super) fn new(class: Class) -> Self {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            let outer = held.iter().find(|outer| contradicts(outer, class));
            // What is dropped after a panic takes locks too, and one panic is enough.
            if let (Some(outer), false) = (outer, panicking()) {
                panic!("lock {class} is taken inside {outer}, which has been the other way round");
            }
            held.push(class);
        });

        Self(class)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            if let Some(last) = held.iter().rposition(|class| *class == self.0) {
                held.remove(last);
            }
        });
    }
}

/// Records that `inner` is taken while `outer` is held, unless that contradicts what has been
/// recorded. Returns whether it does.
fn contradicts(outer: Class, inner: Class) -> bool {
    let mut order = ORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if inner == outer || order.contains(&(inner, outer)) {
        return true;
    }
    order.insert((outer, inner));

    false
}
