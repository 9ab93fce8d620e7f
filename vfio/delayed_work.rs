// SPDX-License-Identifier: GPL-2.0

//! Work that is done some time later, and can be cancelled.
//!
//! The kernel crate's own `DelayedWork` cannot be cancelled, so that a module which uses it may be
//! gone when it is its turn.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use kernel::{
    container_of,
    prelude::*,
    types::Opaque, //
};

/// What [`DelayedWork`] does.
pub(crate) trait Work: Send + Sync + 'static {
    /// Does the work. Returns after how many milliseconds it is to be done again, if it is and
    /// nobody has scheduled it meanwhile.
    ///
    /// Called in process context, once at a time; may sleep.
    fn run(&self) -> Option<u32>;
}

/// Work that is done some time after it has been scheduled. Not while the system is suspended.
///
/// Dropping it cancels it, and waits for it if it is being done. May sleep, and must not be done
/// with a lock held that [`Work::run`] takes.
///
/// # Invariants
///
/// `dwork` is initialised before the `DelayedWork` is, its function is [`DelayedWork::callback`],
/// and it is pinned.
#[pin_data(PinnedDrop)]
pub(crate) struct DelayedWork<T: Work> {
    #[pin]
    dwork: Opaque<bindings::delayed_work>,
    work: T,
}

// SAFETY: A `struct delayed_work` can be used from any thread, and `T` is `Send`.
unsafe impl<T: Work> Send for DelayedWork<T> {}

// SAFETY: A `struct delayed_work` does its own locking, and `T` is `Sync`.
unsafe impl<T: Work> Sync for DelayedWork<T> {}

impl<T: Work> DelayedWork<T> {
    /// Makes an initialiser of `work` that is not scheduled.
    pub(crate) fn new(work: T) -> impl PinInit<Self> {
        pin_init!(Self {
            work,
            dwork <- Opaque::ffi_init(|dwork: *mut bindings::delayed_work| {
                // SAFETY: `ffi_init()` passes a pointer that is valid for writes.
                unsafe { bindings::vfio_rs_init_delayed_work(dwork, Some(Self::callback)) }
            }),
        })
    }

    /// Has the work done in `ms` milliseconds, whatever it was scheduled for before.
    ///
    /// Can be called in any context.
    pub(crate) fn schedule(&self, ms: u32) {
        // SAFETY: By the type invariants.
        unsafe { bindings::vfio_rs_schedule_delayed_work(self.dwork.get(), ms) };
    }

    /// Has the work not done, if it is scheduled and has not begun. Does not wait for it if it has.
    ///
    /// Can be called in any context.
    pub(crate) fn cancel(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::cancel_delayed_work(self.dwork.get()) };
    }

    /// # Safety
    ///
    /// Called by a workqueue with the `struct work_struct` of a [`DelayedWork<T>`].
    unsafe extern "C" fn callback(work: *mut bindings::work_struct) {
        // SAFETY: By the requirements of this function. It exists until this has returned, because
        // dropping it waits for that.
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

#[pinned_drop]
impl<T: Work> PinnedDrop for DelayedWork<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants. After this, the work is not being done, nor will it be:
        // nobody else has a reference to `self`, and it cannot schedule itself meanwhile.
        unsafe { bindings::cancel_delayed_work_sync(self.dwork.get()) };
    }
}
