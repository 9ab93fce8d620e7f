// SPDX-License-Identifier: GPL-2.0

//! Functions that do not answer.

use super::function::{
    log_ratelimited,
    Function, //
};
use crate::bindings;
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

impl Function {
    /// Returns whether the function was unplugged, or did not answer when the driver last looked.
    pub(crate) fn is_gone(&self) -> bool {
        self.flags().is_gone.load(Relaxed) || self.is_unplugged()
    }

    /// Records whether the function answers. Returns whether that has changed.
    ///
    /// If it does not, the record of its reset is void.
    pub(crate) fn set_gone(&self, is_gone: bool) -> bool {
        let has_changed = self.flags().is_gone.xchg(is_gone, Relaxed) != is_gone;
        if is_gone {
            self.record().invalidate();
        } else if has_changed && log_ratelimited() {
            dev_info!(self.dev(), "answers again\n");
        }

        has_changed
    }

    /// Returns whether the function, which is awake, answers to an access to its config space.
    pub(crate) fn answers(&self) -> bool {
        // SAFETY: `self` holds a reference to the device.
        let answers = unsafe { bindings::vfio_rs_pci_answers(self.as_raw()) };
        if self.set_gone(!answers) && !answers && log_ratelimited() {
            dev_warn!(self.dev(), "not reset: it does not answer\n");
        }

        answers
    }

    /// Returns whether a function that did not answer still does not. Wakes it to find out.
    pub(crate) fn is_still_gone(&self) -> bool {
        let core = self.core().as_raw();

        if !self.is_gone() {
            return false;
        }
        // SAFETY: The core device is initialised, and so is its PCI device.
        if unsafe { bindings::vfio_rs_wake(core) } != 0 {
            // It could not be woken for a reset either.
            return false;
        }
        let answers = self.answers();
        // SAFETY: This pairs with `vfio_rs_wake()`.
        unsafe { bindings::vfio_rs_put_sync(core) };

        !answers
    }
}
