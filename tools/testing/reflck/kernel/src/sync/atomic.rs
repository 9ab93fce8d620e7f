// SPDX-License-Identifier: GPL-2.0

use super::backend::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

pub struct Relaxed;
pub struct Full;

/// A flag. Every order of access is the strongest.
pub struct Atomic<T>(AtomicBool, core::marker::PhantomData<T>);

impl Atomic<bool> {
    pub fn new(value: bool) -> Self {
        Self(AtomicBool::new(value), core::marker::PhantomData)
    }

    pub fn load(&self, _: Relaxed) -> bool {
        self.0.load(SeqCst)
    }

    pub fn store(&self, value: bool, _: Relaxed) {
        self.0.store(value, SeqCst);
    }

    pub fn xchg(&self, value: bool, _: Full) -> bool {
        self.0.swap(value, SeqCst)
    }
}
