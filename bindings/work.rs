// SPDX-License-Identifier: GPL-2.0

//! Delayed work that can be cancelled.
//!
//! The kernel crate's `DelayedWork` cannot be cancelled, so it could run after the module was
//! unloaded.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::ops::Deref;
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// The work of a [`DelayedWork`].
pub(crate) trait Work: Send + Sync + 'static {
    /// Does the work. Returns a delay in milliseconds after which to run again, if any.
    ///
    /// A delay that was scheduled meanwhile takes precedence. Runs in process context, never twice
    /// at once; may sleep.
    fn run(&self) -> Option<u32>;
}

/// The workqueue of the module. Dropping it waits for all work.
pub(crate) struct Queue(());

impl Queue {
    /// Creates the workqueue. There is one at most.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: There is no other one.
        to_result(unsafe { bindings::vfio_rs_create_workqueue() })?;

        Ok(Self(()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: It was created, and nothing schedules work any more.
        unsafe { bindings::vfio_rs_destroy_workqueue() };
    }
}

/// A [`Work`] that can be scheduled to run later.
///
/// It needs a [`Queue`], and does not run while the system is suspended. Dropping it cancels the
/// work, and waits for it if it is running: that may sleep, and must not happen with a lock held
/// that [`Work::run`] takes.
///
/// # Invariants
///
/// `dwork` is initialised with [`DelayedWork::callback`] as its function, and pinned.
#[pin_data(PinnedDrop)]
pub(crate) struct DelayedWork<T: Work> {
    #[pin]
    dwork: Opaque<bindings::delayed_work>,
    #[pin]
    work: T,
}

// SAFETY: A `struct delayed_work` can be used from any thread, and `T` is `Send`.
unsafe impl<T: Work> Send for DelayedWork<T> {}

// SAFETY: A `struct delayed_work` does its own locking, and `T` is `Sync`.
unsafe impl<T: Work> Sync for DelayedWork<T> {}

impl<T: Work> DelayedWork<T> {
    pub(crate) fn new(work: impl PinInit<T>) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- work,
            dwork <- Opaque::ffi_init(|dwork: *mut bindings::delayed_work| {
                // SAFETY: `ffi_init()` passes a pointer that is valid for writes.
                unsafe { bindings::vfio_rs_init_delayed_work(dwork, Some(Self::callback)) }
            }),
        })
    }

    /// Schedules the work to run in `ms` milliseconds, instead of any earlier schedule.
    ///
    /// Can be called in any context.
    pub(crate) fn schedule(&self, ms: u32) {
        // SAFETY: By the type invariants.
        unsafe { bindings::vfio_rs_schedule_delayed_work(self.dwork.get(), ms) };
    }

    /// Cancels pending work. Does not wait for work that is already running.
    ///
    /// Can be called in any context.
    pub(crate) fn cancel(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::cancel_delayed_work(self.dwork.get()) };
    }

    /// Cancels pending work, or waits for it if it is running. It does not run again after that.
    ///
    /// The caller makes sure that nothing schedules the work meanwhile, and can then run it, as the
    /// queue may be frozen. May sleep. Must not be called with a lock held that [`Work::run`]
    /// takes.
    pub(crate) fn cancel_sync(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::cancel_delayed_work_sync(self.dwork.get()) };
    }

    /// # Safety
    ///
    /// Called by a workqueue with the `struct work_struct` of a [`DelayedWork<T>`].
    unsafe extern "C" fn callback(work: *mut bindings::work_struct) {
        // SAFETY: By the requirements of this function. Dropping the `DelayedWork` waits for this
        // call.
        let this = unsafe {
            let dwork = container_of!(work, bindings::delayed_work, work);
            &*container_of!(
                dwork.cast::<Opaque<bindings::delayed_work>>(),
                DelayedWork<T>,
                dwork
            )
        };

        if let Some(ms) = this.work.run() {
            // SAFETY: By the type invariants.
            unsafe { bindings::vfio_rs_reschedule_delayed_work(this.dwork.get(), ms) };
        }
    }
}

impl<T: Work> Deref for DelayedWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.work
    }
}

#[pinned_drop]
impl<T: Work> PinnedDrop for DelayedWork<T> {
    fn drop(self: Pin<&mut Self>) {
        // The work is neither running nor pending after this: nothing else has a reference to
        // `self`, and cancelling also stops work that reschedules itself. The fields are dropped
        // next.
        //
        // SAFETY: By the type invariants.
        unsafe { bindings::cancel_delayed_work_sync(self.dwork.get()) };
    }
}
