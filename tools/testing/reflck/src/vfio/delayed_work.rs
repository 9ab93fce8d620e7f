// SPDX-License-Identifier: GPL-2.0

//! Stands in for `vfio/delayed_work.rs`: work whose time comes when a test says so.
//!
//! What a thread has scheduled, the same thread can have done, in the order of scheduling.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{
        Arc,
        Mutex,
        Weak, //
    },
};

pub(crate) trait Work: Send + Sync + 'static {
    fn run(&self) -> Option<u32>;
}

pub(crate) struct DelayedWork<T: Work>(Arc<State<T>>);

struct State<T> {
    work: T,
    /// In how many milliseconds it is to be done, if it is scheduled.
    scheduled: Mutex<Option<u32>>,
    /// Held while it is done.
    running: Mutex<()>,
}

thread_local! {
    static QUEUE: RefCell<VecDeque<Weak<dyn Item>>> = const { RefCell::new(VecDeque::new()) };
}

impl<T: Work> DelayedWork<T> {
    pub(crate) fn new(work: T) -> Self {
        Self(Arc::new(State {
            work,
            scheduled: Mutex::new(None),
            running: Mutex::new(()),
        }))
    }

    pub(crate) fn schedule(&self, ms: u32) {
        self.0.clone().schedule(ms);
    }

    pub(crate) fn cancel(&self) {
        *self.0.scheduled.lock().unwrap() = None;
    }
}

impl<T: Work> Drop for DelayedWork<T> {
    fn drop(&mut self) {
        // As in the kernel, it waits for what has begun. What a test that has failed drops comes
        // here too.
        let _running = self.0.running.lock();
        self.cancel();
    }
}

impl<T: Work> State<T> {
    fn schedule(self: Arc<Self>, ms: u32) {
        if self.scheduled.lock().unwrap().replace(ms).is_some() {
            return;
        }
        let item: Arc<dyn Item> = self;
        QUEUE.with_borrow_mut(|queue| queue.push_back(Arc::downgrade(&item)));
    }
}

/// A [`DelayedWork`] of whatever type.
trait Item {
    /// Takes it out of the queue, if it has not been cancelled. Returns its delay.
    fn take(&self) -> Option<u32>;

    /// Does the work.
    fn run(self: Arc<Self>);
}

impl<T: Work> Item for State<T> {
    fn take(&self) -> Option<u32> {
        self.scheduled.lock().unwrap().take()
    }

    fn run(self: Arc<Self>) {
        let running = self.running.lock().unwrap();
        let again = self.work.run();
        drop(running);

        if let Some(ms) = again {
            self.schedule(ms);
        }
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
        self.item.run();
    }
}

/// Begins what this thread has scheduled first, if there is anything.
pub(crate) fn begin() -> Option<Begun> {
    loop {
        let item = QUEUE.with_borrow_mut(VecDeque::pop_front)?;
        let Some(item) = item.upgrade() else {
            continue;
        };
        if let Some(delay) = item.take() {
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
