// SPDX-License-Identifier: GPL-2.0

//! [`Arc`], [`Mutex`], [`SpinLock`], [`CondVar`] and [`LockedBy`].

pub mod atomic;
pub mod backend;
mod held;
pub mod hooks;
mod locked_by;
pub mod signals;

pub use self::{
    held::held,
    locked_by::LockedBy, //
};
pub use crate::{
    new_condvar,
    new_mutex,
    new_spinlock, //
};

use self::{
    held::Held,
    hooks::Point, //
};
use crate::{
    alloc::{
        allocate,
        AllocError,
        Counted,
        Flags, //
    },
    error::{
        Error,
        Result, //
    },
};
use core::ops::{
    Deref,
    DerefMut, //
};
use pinned_init::PinInit;
use std::sync::PoisonError;

/// Counts as [live](crate::alloc::live).
pub struct Arc<T>(backend::Arc<Shared<T>>);

struct Shared<T> {
    value: T,
    _counted: Counted,
}

impl<T> Arc<T> {
    pub fn new(value: T, _flags: Flags) -> Result<Self, AllocError> {
        allocate()?;

        Ok(Self::from_value(value))
    }

    /// Unlike in the kernel, `T` must be movable, as the locks of the stand-in are.
    pub fn pin_init<E>(init: impl PinInit<T, E>, _flags: Flags) -> Result<Self>
    where
        T: Unpin,
        Error: From<E>,
    {
        allocate()?;
        let mut place = Box::<T>::new_uninit();
        // SAFETY: `place` is valid for writes and stays where it is until it is initialised. On
        // error it is freed without being read. `T` is `Unpin`, so it can be moved after that.
        let value = unsafe {
            init.__pinned_init(place.as_mut_ptr())?;
            *place.assume_init()
        };

        Ok(Self::from_value(value))
    }

    fn from_value(value: T) -> Self {
        Self(backend::Arc::new(Shared {
            value,
            _counted: Counted::new(),
        }))
    }

    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        backend::Arc::ptr_eq(&this.0, &other.0)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

pub struct Mutex<T> {
    /// Boxed, so that its address is known without the lock.
    data: backend::Mutex<Box<T>>,
    address: usize,
    name: &'static str,
}

impl<T> Mutex<T> {
    #[doc(hidden)]
    pub fn new(data: T, name: &'static str) -> Self {
        let data = Box::new(data);

        Self {
            address: address_of(&*data),
            data: backend::Mutex::new(data),
            name,
        }
    }

    /// Panics if this thread already holds a mutex.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::new(self.name);

        MutexGuard {
            data: Some(backend::lock(&self.data)),
            held: Some(held),
            mutex: self,
        }
    }
}

pub struct MutexGuard<'a, T> {
    /// Both are `None` only during a wait on a [`CondVar`].
    data: Option<backend::MutexGuard<'a, Box<T>>>,
    held: Option<Held>,
    mutex: &'a Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().expect("waiting borrows the guard")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().expect("waiting borrows the guard")
    }
}

pub struct CondVar(backend::Condvar);

impl CondVar {
    #[doc(hidden)]
    pub fn new() -> Self {
        Self(backend::Condvar::new())
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        hooks::reach(Point::Wait);
        drop(guard.held.take());
        guard.data = guard.data.take().map(|data| backend::wait(&self.0, data));
        if hooks::is_set() {
            // As in the kernel, other threads can take the lock between the wake-up and this one.
            drop(guard.data.take());
            hooks::reach(Point::Notified);
            guard.data = Some(backend::lock(&guard.mutex.data));
        }
        guard.held = Some(Held::new(guard.mutex.name));
    }

    /// Returns whether a signal has ended the wait: one that was [sent](signals::send) before.
    ///
    /// It makes no difference to other threads when the signal comes during the wait. They only see
    /// that the lock is dropped, and is taken again at any later time.
    #[must_use]
    pub fn wait_interruptible<T>(&self, guard: &mut MutexGuard<'_, T>) -> bool {
        if !signals::take() {
            self.wait(guard);
            return false;
        }

        drop(guard.held.take());
        drop(guard.data.take());
        guard.data = Some(backend::lock(&guard.mutex.data));
        guard.held = Some(Held::new(guard.mutex.name));
        true
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A leaf lock for the tests' own data, invisible to loom: it adds no interleavings.
pub struct SpinLock<T>(std::sync::Mutex<T>);

impl<T> SpinLock<T> {
    #[doc(hidden)]
    pub fn new(data: T) -> Self {
        Self(std::sync::Mutex::new(data))
    }

    pub fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[macro_export]
macro_rules! new_mutex {
    ($data:expr, $name:literal) => {
        $crate::sync::Mutex::new($data, $name)
    };
}

#[macro_export]
macro_rules! new_condvar {
    ($name:literal) => {
        $crate::sync::CondVar::new()
    };
}

#[macro_export]
macro_rules! new_spinlock {
    ($data:expr, $name:literal) => {
        $crate::sync::SpinLock::new($data)
    };
}

fn address_of<T>(data: &T) -> usize {
    core::ptr::from_ref(data).addr()
}
