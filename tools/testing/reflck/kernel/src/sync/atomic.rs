// SPDX-License-Identifier: GPL-2.0

use super::backend::AtomicU32;
use core::marker::PhantomData;
use std::sync::atomic::Ordering::SeqCst;

pub struct Relaxed;
pub struct Full;

/// A type that an [`Atomic`] can hold.
pub trait AtomicType: Copy + Into<u32> {
    fn from_u32(value: u32) -> Self;
}

impl AtomicType for bool {
    fn from_u32(value: u32) -> Self {
        value != 0
    }
}

impl AtomicType for u32 {
    fn from_u32(value: u32) -> Self {
        value
    }
}

/// An atomic variable. Every order of access is the strongest.
pub struct Atomic<T>(AtomicU32, PhantomData<T>);

impl<T: AtomicType> Atomic<T> {
    pub fn new(value: T) -> Self {
        Self(AtomicU32::new(value.into()), PhantomData)
    }

    pub fn load(&self, _: Relaxed) -> T {
        T::from_u32(self.0.load(SeqCst))
    }

    pub fn store(&self, value: T, _: Relaxed) {
        self.0.swap(value.into(), SeqCst);
    }

    pub fn xchg(&self, value: T, _: Full) -> T {
        T::from_u32(self.0.swap(value.into(), SeqCst))
    }
}

impl Atomic<u32> {
    pub fn fetch_add(&self, value: u32, _: Relaxed) -> u32 {
        self.0.fetch_add(value, SeqCst)
    }
}
