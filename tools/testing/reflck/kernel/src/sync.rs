// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::sync`: [`Arc`], [`Mutex`], [`CondVar`] and [`LockedBy`].
//!
//! What they are built from comes from `backend.rs` alone, so that another implementation of
//! threads and locks can take its place.

pub mod backend;
mod held;
mod locked_by;
mod shake;
mod watch;

pub use self::{
    held::held,
    locked_by::LockedBy,
    shake::shake,
    watch::{
        watch_waits,
        Wait, //
    }, //
};
pub use crate::{
    new_condvar,
    new_mutex, //
};

use self::held::Held;
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

/// A shared, reference-counted object. It counts as [live](crate::alloc::live).
pub struct Arc<T>(backend::Arc<Shared<T>>);

struct Shared<T> {
    value: T,
    _counted: Counted,
}

impl<T> Arc<T> {
    /// Makes a shared object of `value`, which is dropped if the allocation fails.
    pub fn new(value: T, _flags: Flags) -> Result<Self, AllocError> {
        allocate()?;

        Ok(Self::from_value(value))
    }

    /// Makes a shared object of what `init` initialises. Unlike in the kernel, that has to be
    /// movable, as the lock of the stand-in is.
    pub fn pin_init<E>(init: impl PinInit<T, E>, _flags: Flags) -> Result<Self>
    where
        T: Unpin,
        Error: From<E>,
    {
        allocate()?;
        let mut place = Box::<T>::new_uninit();
        // SAFETY: `place` is valid for writes and stays where it is until it is initialised; on
        // error it is freed without a look at it. Being `Unpin`, the value may be moved later.
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

    /// Returns whether `this` and `other` are the same object.
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

/// A mutual exclusion lock.
pub struct Mutex<T> {
    /// In an allocation of its own, so that its address is known without taking the lock.
    data: backend::Mutex<Box<T>>,
    address: usize,
    name: &'static str,
}

impl<T> Mutex<T> {
    /// What [`new_mutex!`] stands for.
    #[doc(hidden)]
    pub fn new(data: T, name: &'static str) -> Self {
        let data = Box::new(data);

        Self {
            address: address_of(&*data),
            data: backend::Mutex::new(data),
            name,
        }
    }

    /// Waits for the lock and takes it.
    ///
    /// # Panics
    ///
    /// Panics if this thread holds a lock already, whichever it is.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        shake::pause();
        let held = Held::new(self.name);

        MutexGuard {
            data: Some(backend::lock(&self.data)),
            held: Some(held),
            mutex: self,
        }
    }
}

/// A locked [`Mutex`].
pub struct MutexGuard<'a, T> {
    /// Both are missing while it waits on a [`CondVar`] only.
    data: Option<backend::MutexGuard<'a, Box<T>>>,
    held: Option<Held>,
    mutex: &'a Mutex<T>,
}

/// What a thread can wait on until another one notifies it.
pub struct CondVar(backend::Condvar);

impl CondVar {
    /// What [`new_condvar!`] stands for.
    #[doc(hidden)]
    pub fn new() -> Self {
        Self(backend::Condvar::new())
    }

    /// Releases the lock, waits to be notified, and takes the lock again.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        watch::tell(Wait::Begins);
        drop(guard.held.take());
        guard.data = guard.data.take().map(|data| backend::wait(&self.0, data));
        if watch::is_watched() {
            // In the kernel it is one thing to be woken, and another one to have the lock again.
            drop(guard.data.take());
            watch::tell(Wait::IsNotified);
            guard.data = Some(backend::lock(&guard.mutex.data));
        }
        guard.held = Some(Held::new(guard.mutex.name));
    }

    /// Wakes everybody who waits.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
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

/// Initialises a [`Mutex`] of a lock class.
#[macro_export]
macro_rules! new_mutex {
    ($data:expr, $name:literal) => {
        $crate::sync::Mutex::new($data, $name)
    };
}

/// Initialises a [`CondVar`].
#[macro_export]
macro_rules! new_condvar {
    ($name:literal) => {
        $crate::sync::CondVar::new()
    };
}

fn address_of<T>(data: &T) -> usize {
    core::ptr::from_ref(data).addr()
}
