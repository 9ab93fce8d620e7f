// SPDX-License-Identifier: GPL-2.0

//! Attributes in sysfs of the functions that are bound to a driver.
//!
//! C headers: [`include/linux/device.h`](srctree/include/linux/device.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use super::{
    device::Device,
    Driver, //
};
use crate::bindings;
use core::mem::offset_of;
use kernel::{
    container_of,
    error::from_result,
    ffi::c_char,
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        as_char_ptr_in_const_context,
        Formatter, //
    }, //
};

/// Writes the value of an attribute. May sleep, but must not take a device lock.
pub(crate) type Show<T> = fn(&<T as Driver>::Data, &mut Formatter<'_>) -> fmt::Result;

/// Stores a value that root has written, without surrounding white space. Like [`Show`], may sleep,
/// but must not take a device lock.
pub(crate) type Store<T> = fn(&<T as Driver>::Data, &[u8]) -> Result;

/// An attribute of the functions that are bound to a driver.
///
/// Unbinding a function waits for the end of both calls, with its device lock held.
#[repr(C)]
pub(crate) struct Attribute<T: Driver> {
    /// At offset 0, so that a list of attributes is one for sysfs.
    attr: bindings::device_attribute,
    show: Option<Show<T>>,
    store: Option<Store<T>>,
}

/// A list of attributes. Its last entry is `None`.
pub(crate) type Attributes<T> = &'static [Option<&'static Attribute<T>>];

// SAFETY: It is never written, and the pointers in it are static.
unsafe impl<T: Driver> Sync for Attribute<T> {}

impl<T: Driver> Attribute<T> {
    const fn new(
        name: &'static CStr,
        mode: bindings::umode_t,
        show: Option<Show<T>>,
        store: Option<Store<T>>,
    ) -> Self {
        const {
            assert!(offset_of!(Self, attr) == 0);
            assert!(offset_of!(bindings::device_attribute, attr) == 0);
        }

        let mut attr: bindings::device_attribute = pin_init::zeroed();
        attr.attr.name = as_char_ptr_in_const_context(name);
        attr.attr.mode = mode;
        attr.__bindgen_anon_1.show = Some(Self::show_callback);
        attr.__bindgen_anon_2.store = Some(Self::store_callback);

        Self { attr, show, store }
    }

    /// Makes an attribute that all can read.
    pub(crate) const fn ro(name: &'static CStr, show: Show<T>) -> Self {
        Self::new(name, 0o444, Some(show), None)
    }

    /// Makes an attribute that all can read, and root can write.
    pub(crate) const fn rw(name: &'static CStr, show: Show<T>, store: Store<T>) -> Self {
        Self::new(name, 0o644, Some(show), Some(store))
    }

    /// Makes an attribute that root can write.
    pub(crate) const fn wo(name: &'static CStr, store: Store<T>) -> Self {
        Self::new(name, 0o200, None, Some(store))
    }

    /// # Safety
    ///
    /// `dev` must be bound to the driver, and `attr` be in an [`Attribute<T>`], both for `'a`.
    unsafe fn of_callback<'a>(
        dev: *mut bindings::device,
        attr: *mut bindings::device_attribute,
    ) -> (&'a T::Data, &'a Self) {
        // SAFETY: By the requirements of this function. `attr` is at offset 0.
        unsafe {
            let pdev = container_of!(dev, bindings::pci_dev, dev);

            (Device::<T>::of_bound(pdev).data(), &*attr.cast::<Self>())
        }
    }

    /// # Safety
    ///
    /// Called by sysfs, with a page of zeros. The driver core removes the attributes of a device
    /// before it unbinds the device, and that waits for the callbacks in progress.
    unsafe extern "C" fn show_callback(
        dev: *mut bindings::device,
        attr: *mut bindings::device_attribute,
        buf: *mut c_char,
    ) -> isize {
        from_result(|| {
            // SAFETY: By the requirements of this function.
            let (data, attribute) = unsafe { Self::of_callback(dev, attr) };
            // SAFETY: By the requirements of this function. sysfs wants the last byte to be 0.
            let page = unsafe { core::slice::from_raw_parts_mut(buf.cast(), PAGE_SIZE - 1) };
            let size = page.len();
            let mut f = Formatter::new(page);
            // What does not fit is cut off.
            let _ = attribute.show.ok_or(EIO)?(data, &mut f);

            // CAST: No more than a page.
            Ok(f.bytes_written().min(size) as isize)
        })
    }

    /// # Safety
    ///
    /// Called by sysfs, with `count` bytes. As for `show_callback()`.
    unsafe extern "C" fn store_callback(
        dev: *mut bindings::device,
        attr: *mut bindings::device_attribute,
        buf: *const c_char,
        count: usize,
    ) -> isize {
        from_result(|| {
            // SAFETY: By the requirements of this function.
            let (data, attribute) = unsafe { Self::of_callback(dev, attr) };
            // SAFETY: By the requirements of this function.
            let text = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), count) };
            attribute.store.ok_or(EIO)?(data, text.trim_ascii())?;

            // CAST: No more than a page.
            Ok(count as isize)
        })
    }
}
