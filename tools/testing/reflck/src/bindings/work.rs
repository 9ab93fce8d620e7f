// SPDX-License-Identifier: GPL-2.0

//! Stand-in for `bindings/work.rs`: work that runs when a test says so.
//!
//! A thread runs the work that it has scheduled, in that order. All threads of a model are one
//! here.

use core::ops::Deref;
use kernel::{
    prelude::*,
    sync::backend::{
        lock,
        wait,
        Condvar,
        Mutex,
        MutexGuard, //
    }, //
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::Arc, //
};

pub(crate) trait Work: Send + Sync + 'static {
    fn run(&self) -> Option<u32>;
}

#[pin_data]
pub(crate) struct DelayedWork<T: Work> {
    /// Dropped before `work`, which it refers to.
    item: Scheduled,
    #[pin]
    work: T,
}

impl<T: Work> DelayedWork<T> {
    pub(crate) fn new<E>(work: impl PinInit<T, E>) -> impl PinInit<Self, E> {
        pinned_init::try_pin_init!(Self {
            work <- work,
            item: Scheduled(Arc::new(Item {
                phase: Mutex::new(Phase::default()),
                done: Condvar::new(),
            })),
        }? E)
    }

    pub(crate) fn schedule(&self, ms: u32) {
        let work: &dyn Work = &self.work;
        lock(&self.item.0.phase).work = Some(work);
        self.item.0.schedule(ms);
    }

    pub(crate) fn cancel(&self) {
        lock(&self.item.0.phase).delay = None;
    }

    /// Cancels the work, or waits for another thread that runs it.
    pub(crate) fn cancel_sync(&self) {
        self.item.0.cancel_sync();
    }
}

impl<T: Work> Deref for DelayedWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.work
    }
}

struct Scheduled(Arc<Item>);

impl Drop for Scheduled {
    /// Cancels the work and waits for it, as in the kernel.
    fn drop(&mut self) {
        self.0.cancel_sync();
    }
}

struct Item {
    phase: Mutex<Phase>,
    /// Notified when the work is not running any more.
    done: Condvar,
}

#[derive(Default)]
struct Phase {
    /// Valid while `delay` is set or the work is running.
    work: Option<*const dyn Work>,
    /// In milliseconds, if the work is scheduled.
    delay: Option<u32>,
    is_running: bool,
}

// SAFETY: Threads share `work` as a `&dyn Work` only, and `Work` is `Sync`.
unsafe impl Send for Phase {}

thread_local! {
    static QUEUE: RefCell<VecDeque<Arc<Item>>> = const { RefCell::new(VecDeque::new()) };
}

impl Item {
    /// Begins the work, if it is scheduled.
    fn begin(self: &Arc<Self>, mut phase: MutexGuard<'_, Phase>) -> Option<Running> {
        let delay = phase.delay.take()?;
        phase.is_running = true;
        let work = phase.work.expect("scheduled without work");

        Some(Running {
            item: self.clone(),
            work,
            delay,
            again: None,
        })
    }

    fn cancel_sync(&self) {
        let mut phase = lock(&self.phase);
        while phase.is_running {
            phase = wait(&self.done, phase);
        }
        phase.delay = None;
    }

    fn schedule(self: &Arc<Self>, ms: u32) {
        self.schedule_locked(&mut lock(&self.phase), ms);
    }

    fn schedule_locked(self: &Arc<Self>, phase: &mut Phase, ms: u32) {
        if phase.delay.replace(ms).is_none() {
            QUEUE.with_borrow_mut(|queue| queue.push_back(self.clone()));
        }
    }
}

/// Work that is running. It cannot be cancelled any more.
pub(crate) struct Running {
    item: Arc<Item>,
    work: *const dyn Work,
    delay: u32,
    again: Option<u32>,
}

impl Running {
    pub(crate) fn finish(mut self) {
        // SAFETY: Dropping the work waits until it is not running any more.
        self.again = unsafe { &*self.work }.run();
    }
}

impl Drop for Running {
    /// Schedules the work again if it asks for that, unless it was scheduled meanwhile.
    fn drop(&mut self) {
        let mut phase = lock(&self.item.phase);
        phase.is_running = false;
        if let (None, Some(ms)) = (phase.delay, self.again) {
            self.item.schedule_locked(&mut phase, ms);
        }
        self.item.done.notify_all();
    }
}

/// Begins the first work that this thread has scheduled, if any.
pub(crate) fn begin() -> Option<Running> {
    loop {
        let item = QUEUE.with_borrow_mut(VecDeque::pop_front)?;
        if let Some(running) = item.begin(lock(&item.phase)) {
            return Some(running);
        }
    }
}

/// Runs the first work that this thread has scheduled. Returns its delay in milliseconds.
pub(crate) fn run_next() -> Option<u32> {
    let running = begin()?;
    let delay = running.delay;
    running.finish();

    Some(delay)
}
