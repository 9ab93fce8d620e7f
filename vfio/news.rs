// SPDX-License-Identifier: GPL-2.0

//! The notifications to user space about a function, and its counters.

use kernel::sync::atomic::Atomic;

#[cfg(doc)]
use crate::reflck::Status;

/// The last notifications, and the counters. The holder of the reflck writes `shown` and
/// `announced`, the owner of the claim the rest.
pub(super) struct News {
    /// The last [`Status`] that `poll()` has shown, or [`News::GONE`].
    pub(super) shown: Atomic<u32>,
    /// The last one in a uevent.
    pub(super) announced: Atomic<u32>,
    /// The time of the last reset, in ns since boot, times two, plus one if the function was reset
    /// alone. 0 if there was none.
    pub(super) last_reset: Atomic<u64>,
    /// The open in progress has skipped its reset.
    pub(super) is_skipped: Atomic<bool>,
    pub(super) opens_with_reset: Atomic<u32>,
    pub(super) opens_without: Atomic<u32>,
}

impl News {
    /// None yet.
    pub(super) const NOTHING: u32 = u32::MAX;

    /// It does not answer, which is no [`Status`].
    pub(super) const GONE: u32 = u32::MAX - 1;

    pub(super) fn new() -> Self {
        Self {
            shown: Atomic::new(Self::NOTHING),
            announced: Atomic::new(Self::NOTHING),
            last_reset: Atomic::new(0),
            is_skipped: Atomic::new(false),
            opens_with_reset: Atomic::new(0),
            opens_without: Atomic::new(0),
        }
    }
}
