// SPDX-License-Identifier: GPL-2.0

//! Stands in for `bindings/work.rs`: work whose time comes when a test says so.
//!
//! What a thread has scheduled, the same thread can have done, in the order of scheduling. All threads
//! of a model are one in this.

use kernel::prelude::PinInit;
use kernel::sync::backend::{
    lock,
    wait,
    Condvar,
    Mutex, //
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    ops::Deref,
    sync::{
        Arc,
        Weak, //
    }, //
};

pub(crate) trait Work: Send + Sync + 'static {
    fn run(&self) -> Option<u32>;
}

pub(crate) struct DelayedWork<T: Work>(Arc<State<T>>);

struct State<T> {
    work: T,
    phase: Mutex<Phase>,
    /// Notified when it is not running any more.
    done: Condvar,
}

#[derive(Default)]
struct Phase {
    /// In how many milliseconds it is to be done, if it is scheduled.
    scheduled: Option<u32>,
    is_running: bool,
}

thread_local! {
    static QUEUE: RefCell<VecDeque<Weak<dyn Item>>> = const { RefCell::new(VecDeque::new()) };
}

impl<T: Work> DelayedWork<T> {
    pub(crate) fn new(work: impl PinInit<T>) -> Self
    where
        T: Unpin,
    {
        let mut place = Box::<T>::new_uninit();
        // SAFETY: `place` is valid for writes and stays where it is until it is initialised. Being
        // `Unpin`, the value may be moved later.
        let work = unsafe {
            match work.__pinned_init(place.as_mut_ptr()) {
                Ok(()) => *place.assume_init(),
            }
        };

        Self(Arc::new(State {
            work,
            phase: Mutex::new(Phase::default()),
            done: Condvar::new(),
        }))
    }

    pub(crate) fn schedule(&self, ms: u32) {
        self.0.clone().schedule(ms);
    }

    pub(crate) fn cancel(&self) {
        lock(&self.0.phase).scheduled = None;
    }
}

impl<T: Work> Deref for DelayedWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.work
    }
}

impl<T: Work> Drop for DelayedWork<T> {
    /// Cancels it, and waits for it if it is running, as in the kernel.
    fn drop(&mut self) {
        let mut phase = lock(&self.0.phase);
        while phase.is_running {
            phase = wait(&self.0.done, phase);
        }
        phase.scheduled = None;
    }
}

impl<T: Work> State<T> {
    fn schedule(self: Arc<Self>, ms: u32) {
        if lock(&self.phase).scheduled.replace(ms).is_none() {
            let item: Weak<Self> = Arc::downgrade(&self);
            QUEUE.with_borrow_mut(|queue| queue.push_back(item));
        }
    }
}

/// A [`DelayedWork`] of whatever type.
trait Item {
    /// Has it run from now on, if it has not been cancelled. Returns its delay.
    fn begin(&self) -> Option<u32>;

    /// Does the work that has begun.
    fn finish(self: Arc<Self>);
}

impl<T: Work> Item for State<T> {
    fn begin(&self) -> Option<u32> {
        let mut phase = lock(&self.phase);
        let delay = phase.scheduled.take()?;
        phase.is_running = true;

        Some(delay)
    }

    fn finish(self: Arc<Self>) {
        if let Some(ms) = self.work.run() {
            self.clone().schedule(ms);
        }
        lock(&self.phase).is_running = false;
        self.done.notify_all();
    }
}

/// Work that has begun: cancelling it comes too late.
pub(crate) struct Begun {
    item: Arc<dyn Item>,
    /// After how many milliseconds it was to begin.
    pub(crate) delay: u32,
}

impl Begun {
    /// Has it done.
    pub(crate) fn finish(self) {
        self.item.finish();
    }
}

/// Begins what this thread has scheduled first, if there is anything.
pub(crate) fn begin() -> Option<Begun> {
    loop {
        let Some(item) = QUEUE.with_borrow_mut(VecDeque::pop_front)?.upgrade() else {
            continue;
        };
        if let Some(delay) = item.begin() {
            return Some(Begun { item, delay });
        }
    }
}

/// Does what this thread has scheduled first. Returns its delay, or `None` if there is nothing.
pub(crate) fn run_next() -> Option<u32> {
    let begun = begin()?;
    let delay = begun.delay;
    begun.finish();

    Some(delay)
}
