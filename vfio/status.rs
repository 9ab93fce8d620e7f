// SPDX-License-Identifier: GPL-2.0

//! The status of a function for user space, with `poll()` and uevents, and its last reset.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use super::{
    function::Function,
    news::News, //
};
use crate::{
    bindings,
    reflck::Status, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// The directory of a function's attributes in sysfs.
pub(crate) const DIRECTORY: &CStr = c"vfio_reset";

/// The attribute that user space can `poll()`.
pub(crate) const STATE: &CStr = c"state";

/// The kind of a reset.
#[derive(Clone, Copy)]
pub(crate) enum ResetBy {
    /// A reset of the function alone.
    Function,
    /// That of its slot or bus.
    Domain,
}

impl Function {
    /// Returns the status of a function, or `None` if it does not answer.
    ///
    /// `account` is its status according to the reflck.
    pub(crate) fn status(&self, account: Status) -> Option<Status> {
        match account {
            Status::Unknown | Status::Dirty | Status::Clean if self.is_gone() => None,
            status => Some(status),
        }
    }

    /// Wakes `poll()` if the status is new, and sends a uevent for some.
    ///
    /// It announces a function that is clean, or that stays dirty or gone until user space acts,
    /// unless that was the last one announced: an open and a close leave a clean function clean.
    /// `account` is as in [`Function::status`]. Called with the reflck held. May sleep.
    pub(crate) fn announce(&self, account: Status, is_settled: bool) {
        let news = self.news();
        let status = self.status(account);
        let number = status.map_or(News::GONE, |status| status as u32);
        // SAFETY: `self` holds a reference to the device.
        let kobj = unsafe { &raw mut (*self.as_raw()).dev.kobj };

        if news.shown.load(Relaxed) != number {
            news.shown.store(number, Relaxed);
            // SAFETY: The device exists. Before and after it is bound, there is no such file.
            unsafe {
                bindings::sysfs_notify(kobj, DIRECTORY.as_char_ptr(), STATE.as_char_ptr());
            }
        }

        // It can stop answering once more.
        if !self.is_gone() && news.announced.load(Relaxed) == News::GONE {
            news.announced.store(News::NOTHING, Relaxed);
        }

        let variable = match status {
            None => c"VFIO_RESET_STATE=gone",
            Some(Status::Clean) => c"VFIO_RESET_STATE=clean",
            Some(Status::Dirty) if is_settled => c"VFIO_RESET_STATE=dirty",
            _ => return,
        };
        if news.announced.load(Relaxed) != number {
            news.announced.store(number, Relaxed);
            let mut env = [variable.as_char_ptr().cast_mut(), core::ptr::null_mut()];
            // SAFETY: The device exists, and the list ends with NULL. It is not written to.
            unsafe {
                bindings::kobject_uevent_env(
                    kobj,
                    bindings::kobject_action_KOBJ_CHANGE,
                    env.as_mut_ptr(),
                )
            };
        }
    }

    /// Records that the function was just reset.
    pub(super) fn note_reset(&self, by: ResetBy) {
        // SAFETY: It can be called in any context.
        let now = unsafe { bindings::ktime_get_mono_fast_ns() };

        let is_alone = u64::from(matches!(by, ResetBy::Function));
        self.news().last_reset.store(now << 1 | is_alone, Relaxed);
    }

    /// Returns what last reset the function while it was bound, and when, in ns since boot.
    pub(crate) fn last_reset(&self) -> Option<(ResetBy, u64)> {
        match self.news().last_reset.load(Relaxed) {
            0 => None,
            last if last & 1 == 1 => Some((ResetBy::Function, last >> 1)),
            last => Some((ResetBy::Domain, last >> 1)),
        }
    }

    /// Records that an open begins.
    pub(crate) fn begin_open(&self) {
        self.news().is_skipped.store(false, Relaxed);
    }

    /// Records that the open in progress skips its reset.
    pub(crate) fn skip_reset(&self) {
        self.news().is_skipped.store(true, Relaxed);
    }

    /// Records that the open has worked, and whether the function can be reset alone.
    pub(crate) fn end_open(&self, resets_alone: bool) {
        let news = self.news();

        if news.is_skipped.load(Relaxed) {
            news.opens_without.fetch_add(1, Relaxed);
        } else if resets_alone {
            news.opens_with_reset.fetch_add(1, Relaxed);
            self.note_reset(ResetBy::Function);
        }
    }

    /// Returns the number of opens that have reset the function, and of those that have skipped it.
    pub(crate) fn opens(&self) -> (u32, u32) {
        let news = self.news();

        (
            news.opens_with_reset.load(Relaxed),
            news.opens_without.load(Relaxed),
        )
    }
}
