// SPDX-License-Identifier: GPL-2.0

use super::backend::{
    AtomicBool,
    AtomicU32, //
};
use std::sync::atomic::Ordering::SeqCst;

pub struct Relaxed;
pub struct Full;

/// A type that an [`Atomic`] can hold.
pub trait AtomicType: Copy {
    type Repr;

    fn new(value: Self) -> Self::Repr;
    fn load(from: &Self::Repr) -> Self;
    fn swap(with: &Self::Repr, value: Self) -> Self;
}

macro_rules! atomic_type {
    ($type:ty, $repr:ty) => {
        impl AtomicType for $type {
            type Repr = $repr;

            fn new(value: Self) -> Self::Repr {
                <$repr>::new(value)
            }

            fn load(from: &Self::Repr) -> Self {
                from.load(SeqCst)
            }

            fn swap(with: &Self::Repr, value: Self) -> Self {
                with.swap(value, SeqCst)
            }
        }
    };
}

atomic_type!(bool, AtomicBool);
atomic_type!(u32, AtomicU32);

/// An atomic variable. Every order of access is the strongest.
pub struct Atomic<T: AtomicType>(T::Repr);

impl<T: AtomicType> Atomic<T> {
    pub fn new(value: T) -> Self {
        Self(T::new(value))
    }

    pub fn load(&self, _: Relaxed) -> T {
        T::load(&self.0)
    }

    pub fn store(&self, value: T, _: Relaxed) {
        T::swap(&self.0, value);
    }

    pub fn xchg(&self, value: T, _: Full) -> T {
        T::swap(&self.0, value)
    }
}

impl Atomic<u32> {
    pub fn fetch_add(&self, value: u32, _: Relaxed) -> u32 {
        self.0.fetch_add(value, SeqCst)
    }
}
