// SPDX-License-Identifier: GPL-2.0

//! A vfio-pci device: its allocation, its registration with vfio, and the callbacks of its ops.
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use super::{
    function::{
        as_raw,
        Function, //
    },
    hot_reset,
    Driver,
    Name, //
};
use crate::bindings;
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::{
    device,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_long, //
    },
    pci,
    prelude::*,
    str::as_char_ptr_in_const_context,
    sync::aref::ARef,
    types::Opaque,
    uaccess::UserPtr, //
};

/// How vfio-pci-core shall treat a device. Fixed from probe to remove.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Do not use PCI 2.3 style INTx masking.
    pub(crate) nointxmask: bool,
    /// Give no access to legacy VGA addresses, and leave them to other VGA devices.
    pub(crate) disable_vga: bool,
    /// Leave the function in D0 while it is unused.
    pub(crate) disable_idle_d3: bool,
}

/// A device of a vfio-pci variant driver.
///
/// # Invariants
///
/// - `core` is at offset 0, its `struct vfio_device` is at offset 0 of that, and it was initialised
///   by vfio core and vfio-pci-core. vfio core's reference count owns the allocation.
/// - `data` is initialised from before the device is registered with vfio until after it is
///   unregistered, and so whenever a callback of [`VTable`] that uses it can run.
#[repr(C)]
pub(crate) struct Device<T: Driver> {
    core: Opaque<bindings::vfio_pci_core_device>,
    data: UnsafeCell<MaybeUninit<T::Data>>,
}

// SAFETY: The C part can be used from any thread, and `T::Data` is `Send`.
unsafe impl<T: Driver> Send for Device<T> {}

// SAFETY: The C part does its own locking, and `T::Data` is `Sync`.
unsafe impl<T: Driver> Sync for Device<T> {}

impl<T: Driver> Device<T> {
    /// Returns the driver's data of the device.
    pub(crate) fn data(&self) -> &T::Data {
        // SAFETY: References to a `Device` are handed out by callbacks and by `unregister()` only,
        // when `data` is initialised by the type invariants.
        unsafe { (*self.data.get()).assume_init_ref() }
    }

    /// # Safety
    ///
    /// `vdev` must be the `struct vfio_device` of a `Device<T>` that is registered with vfio, and
    /// stays so for `'a`.
    unsafe fn from_vdev<'a>(vdev: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By the type invariants, the `struct vfio_device` is at offset 0.
        unsafe { &*vdev.cast() }
    }

    fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.core.get()
    }

    fn vdev(&self) -> *mut bindings::vfio_device {
        self.core.get().cast()
    }

    /// Returns whether resetting the function alone worked when it was opened. Called with
    /// `dev_set->lock` held.
    fn reset_works(&self) -> bool {
        // SAFETY: Only open writes the field, under `dev_set->lock`, which is held.
        unsafe { bindings::vfio_pci_core_device::reset_works_raw(self.core()) }
    }
}

impl<T: Driver> Device<T> {
    /// Allocates a device for `pdev` with the driver's data in it, which `data` makes, and
    /// registers it with vfio: user space can open it then. `name` is the one that the driver is
    /// registered under.
    ///
    /// Makes the device the driver data of `pdev`, as vfio-pci-core wants it to be. Gives the
    /// errors of `data`, and those of `vfio_pci_core_register_device()`: [`EINVAL`] for a bridge,
    /// [`EBUSY`] for a PF whose VFs are enabled.
    pub(super) fn register(
        pdev: &pci::Device<device::Core<'_>>,
        name: Name,
        data: impl FnOnce(CoreDevice) -> Result<T::Data>,
    ) -> Result {
        const {
            assert!(core::mem::offset_of!(Device<T>, core) == 0);
            assert!(core::mem::offset_of!(bindings::vfio_pci_core_device, vdev) == 0);
        }

        // SAFETY: `pdev` is valid.
        let dev = unsafe { &raw mut (*as_raw(pdev)).dev };

        // SAFETY: `dev` is valid, the ops are static and their `init` knows the layout. The size is
        // padded to the alignment, which kmalloc follows for such a size.
        let vdev = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(
                Layout::new::<Self>().pad_to_align().size(),
                dev,
                VTable::<T>::ops(name),
            )
        })?;
        let this = vdev.cast::<Self>();

        let put = Put(vdev);

        // SAFETY: `_vfio_alloc_device()` has called `init_callback()`, so that the core device is
        // initialised, with `pdev` as its PCI device.
        let data = data(unsafe { CoreDevice::new(this.cast()) })?;
        // SAFETY: As above.
        unsafe { (&raw mut (*this).data).cast::<T::Data>().write(data) };

        let drop_data = DropData::<T>(this);

        // SAFETY: The core device is initialised and not registered yet. The bus clears the driver
        // data if this fails.
        to_result(unsafe {
            (*this.cast::<bindings::vfio_pci_core_device>()).pci_ops = VTable::<T>::PCI_OPS;
            bindings::dev_set_drvdata(dev, this.cast());
            bindings::vfio_pci_core_register_device(this.cast())
        })?;

        // Both are for `unregister()` now.
        core::mem::forget(drop_data);
        core::mem::forget(put);

        Ok(())
    }

    /// Waits until no user has the device of `pdev` open, unregisters it from vfio, and drops it.
    /// The driver is told in between.
    ///
    /// # Safety
    ///
    /// Must be called once for each success of [`Device::register`], from the remove callback of
    /// the same driver.
    pub(super) unsafe fn unregister(pdev: &pci::Device<device::Core<'_>>) {
        // SAFETY: By the requirements of this function, the driver data is that of `register()`.
        let data = unsafe { bindings::dev_get_drvdata(&raw mut (*as_raw(pdev)).dev) };
        let this = data.cast::<Self>();

        let put = Put(this.cast());
        let drop_data = DropData::<T>(this);

        // SAFETY: The device is registered. When this returns, no callback runs or will run.
        unsafe { bindings::vfio_pci_core_unregister_device(this.cast()) };
        // SAFETY: The device and its data are dropped below.
        T::unbind(pdev, unsafe { (*this).data() });

        drop(drop_data);
        drop(put);
    }
}

/// Drops a reference to a device.
struct Put(*mut bindings::vfio_device);

impl Drop for Put {
    fn drop(&mut self) {
        // SAFETY: Whoever makes a `Put` owns a reference to the device.
        unsafe { bindings::put_device(&raw mut (*self.0).device) };
    }
}

/// A reference to the part of a device that is vfio-pci-core's, and to its PCI function.
///
/// # Invariants
///
/// Owns a reference to `core`, which is initialised, and whose PCI device `pdev` is.
pub(crate) struct CoreDevice {
    core: NonNull<bindings::vfio_pci_core_device>,
    pdev: ARef<pci::Device>,
}

// SAFETY: The reference count is atomic, and what is reached through it does its own locking.
unsafe impl Send for CoreDevice {}

// SAFETY: As above.
unsafe impl Sync for CoreDevice {}

impl CoreDevice {
    /// # Safety
    ///
    /// `core` must be initialised, and the caller must hold a reference to it and to its PCI
    /// device.
    unsafe fn new(core: *mut bindings::vfio_pci_core_device) -> Self {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::get_device(&raw mut (*core).vdev.device) };
        // SAFETY: By the requirements of this function; `pci::Device` is a transparent wrapper of
        // `struct pci_dev`.
        let pdev = unsafe { &*(*core).pdev.cast::<pci::Device>() };

        // INVARIANT: The references are taken.
        Self {
            // SAFETY: What is initialised is not at NULL.
            core: unsafe { NonNull::new_unchecked(core) },
            pdev: pdev.into(),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::vfio_pci_core_device {
        self.core.as_ptr()
    }

    pub(super) fn pdev(&self) -> &pci::Device {
        &self.pdev
    }
}

impl Drop for CoreDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::put_device(&raw mut (*self.as_ptr()).vdev.device) };
    }
}

/// Drops the driver's data of a device that is not registered (any more).
struct DropData<T: Driver>(*mut Device<T>);

impl<T: Driver> Drop for DropData<T> {
    fn drop(&mut self) {
        // SAFETY: Whoever makes a `DropData` holds a reference to the device, has initialised its
        // data, and knows that no callback uses it.
        unsafe { (*(*self.0).data.get()).assume_init_drop() };
    }
}

/// A device that user space is about to open for the first time.
///
/// `dev_set->lock`, which serialises opening and closing of this device, is held for `'a`.
pub(crate) struct ClosedDevice<'a, T: Driver>(&'a Device<T>);

impl<'a, T: Driver> ClosedDevice<'a, T> {
    /// Returns the driver's data of the device.
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    /// Wakes, enables and resets the function, and prepares it for its user.
    ///
    /// Gives the errors of `vfio_pci_core_enable()` and, for Intel graphics, those of
    /// `vfio_pci_igd_init()`, and has undone everything then. May sleep; a function level reset
    /// takes 100 ms.
    pub(crate) fn enable(self) -> Result<EnabledDevice<'a, T>> {
        let core = self.0.core();

        // SAFETY: The device is registered, and closed by the type of `self`.
        to_result(unsafe { bindings::vfio_pci_core_enable(core) })?;
        // SAFETY: It has just been enabled.
        match to_result(unsafe { bindings::vfio_rs_igd_init(core) }) {
            Ok(()) | Err(ENODEV) => (),
            Err(error) => {
                // SAFETY: A registered device has its PCI device, and `pci::Device` is a
                // transparent wrapper of that.
                let pdev = unsafe { &*(*core).pdev.cast::<pci::Device>() };

                dev_warn!(pdev, "Failed to setup Intel IGD regions\n");
                // SAFETY: It has been enabled above, and `dev_set->lock` is held.
                unsafe { bindings::vfio_pci_core_disable(core) };
                return Err(error);
            }
        }
        // SAFETY: It has just been enabled.
        unsafe { bindings::vfio_pci_core_finish_enable(core) };

        Ok(EnabledDevice(self.0))
    }
}

/// A device that user space has open. Dropping it disables it.
///
/// `dev_set->lock`, which serialises opening and closing of this device, is held for `'a`.
pub(crate) struct EnabledDevice<'a, T: Driver>(&'a Device<T>);

impl<'a, T: Driver> EnabledDevice<'a, T> {
    /// Returns the driver's data of the device.
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    /// Returns whether enabling the device has reset the function.
    pub(crate) fn was_reset(&self) -> bool {
        self.0.reset_works()
    }

    /// Stops the function, restores the state that it had before it was enabled, resets it if
    /// possible, and lets runtime PM put it into D3hot, unless `disable_idle_d3`.
    ///
    /// vfio-pci-core calls [`Driver::quiesced`] before it puts the runtime PM reference. May sleep;
    /// a function level reset takes 100 ms.
    pub(crate) fn disable(self) -> DisabledDevice<'a, T> {
        drop(self);

        DisabledDevice(PhantomData)
    }
}

impl<T: Driver> Drop for EnabledDevice<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The device is enabled by the type of `self`, and `dev_set->lock` is held.
        unsafe { bindings::vfio_pci_core_close_device(self.0.vdev()) };
    }
}

/// A device that user space has open and calls: it stays open for `'a`.
pub(crate) struct OpenDevice<'a, T: Driver>(&'a Device<T>);

impl<'a, T: Driver> OpenDevice<'a, T> {
    /// Returns the driver's data of the device.
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    pub(super) fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.0.core()
    }

    /// Returns the function.
    pub(super) fn function(&self) -> Function {
        // SAFETY: The device is registered, and open for as long as `self` is: it is bound.
        Function::new(unsafe { CoreDevice::new(self.core()) })
    }
}

/// The proof that a device has been disabled: nothing else makes one.
pub(crate) struct DisabledDevice<'a, T: Driver>(PhantomData<&'a Device<T>>);

/// A function that vfio-pci-core has stopped, disabled and tried to reset. It is still in D0.
///
/// `dev_set->lock` is held for `'a`.
pub(crate) struct Quiesced<'a, T: Driver>(&'a Device<T>);

impl<'a, T: Driver> Quiesced<'a, T> {
    /// Returns the driver's data of the device.
    pub(crate) fn data(&self) -> &'a T::Data {
        self.0.data()
    }

    /// Returns whether the function is still owed a reset since it was last open.
    pub(crate) fn needs_reset(&self) -> bool {
        // SAFETY: The field is written under `dev_set->lock` only, which is held.
        unsafe { (*self.0.core()).needs_reset }
    }

    /// Returns whether resetting the function alone worked when it was opened.
    pub(crate) fn reset_works(&self) -> bool {
        self.0.reset_works()
    }
}

/// The ops of a device. What only passes through to vfio-pci-core is the C function itself.
struct VTable<T: Driver>(PhantomData<T>);

impl<T: Driver> VTable<T> {
    /// Returns the ops of the devices of a driver that is registered under `name`.
    fn ops(name: Name) -> &'static bindings::vfio_device_ops {
        match name {
            Name::Own => const { &Self::ops_named(T::NAME) },
            Name::DropIn => const { &Self::ops_named(T::DROP_IN_NAME) },
        }
    }

    const fn ops_named(name: &'static CStr) -> bindings::vfio_device_ops {
        bindings::vfio_device_ops {
            name: as_char_ptr_in_const_context(name).cast_mut(),
            init: Some(Self::init_callback),
            release: Some(bindings::vfio_pci_core_release_dev),
            open_device: Some(Self::open_callback),
            close_device: Some(Self::close_callback),
            ioctl: Some(bindings::vfio_pci_core_ioctl),
            get_region_info_caps: Some(bindings::vfio_pci_ioctl_get_region_info),
            device_feature: Some(bindings::vfio_pci_core_ioctl_feature),
            read: Some(bindings::vfio_pci_core_read),
            write: Some(bindings::vfio_pci_core_write),
            mmap: Some(bindings::vfio_pci_core_mmap),
            request: Some(bindings::vfio_pci_core_request),
            match_: Some(bindings::vfio_pci_core_match),
            match_token_uuid: Some(bindings::vfio_pci_core_match_token_uuid),
            #[cfg(CONFIG_IOMMUFD)]
            bind_iommufd: Some(Self::bind_iommufd_callback),
            #[cfg(CONFIG_IOMMUFD)]
            unbind_iommufd: Some(Self::unbind_iommufd_callback),
            #[cfg(CONFIG_IOMMUFD)]
            attach_ioas: Some(Self::attach_ioas_callback),
            #[cfg(CONFIG_IOMMUFD)]
            detach_ioas: Some(Self::detach_ioas_callback),
            #[cfg(CONFIG_IOMMUFD)]
            pasid_attach_ioas: Some(Self::pasid_attach_ioas_callback),
            #[cfg(CONFIG_IOMMUFD)]
            pasid_detach_ioas: Some(Self::pasid_detach_ioas_callback),
            ..pin_init::zeroed()
        }
    }

    const PCI_OPS: &'static bindings::vfio_pci_device_ops = &bindings::vfio_pci_device_ops {
        #[cfg(CONFIG_VFIO_PCI_DMABUF)]
        get_dmabuf_phys: Some(bindings::vfio_pci_core_get_dmabuf_phys),
        #[cfg(not(CONFIG_VFIO_PCI_DMABUF))]
        get_dmabuf_phys: None,
        try_reset: Some(Self::try_reset_callback),
        hot_reset_info: Some(Self::hot_reset_info_callback),
        hot_reset: Some(Self::hot_reset_callback),
    };

    /// Initialises a device that `_vfio_alloc_device()` has allocated.
    ///
    /// # Safety
    ///
    /// Called by vfio core with a zeroed device of this driver.
    unsafe extern "C" fn init_callback(vdev: *mut bindings::vfio_device) -> c_int {
        let core = vdev.cast::<bindings::vfio_pci_core_device>();
        let options = T::options();

        // SAFETY: The device is ours alone while it is initialised.
        unsafe {
            (*core).set_nointxmask(options.nointxmask);
            (*core).set_disable_vga(options.disable_vga);
            (*core).set_disable_idle_d3(options.disable_idle_d3);
        }

        from_result(|| {
            // A set for this device alone: `dev_set->lock` then serialises just its own opening and
            // closing. vfio core undoes this if it is followed by an error.
            //
            // SAFETY: The device is not registered yet.
            to_result(unsafe { bindings::vfio_pci_core_assign_device_set(core, vdev.cast()) })?;

            // SAFETY: vfio core has set `vdev->dev`, the device of a `struct pci_dev`.
            Ok(unsafe { bindings::vfio_pci_core_init_dev(vdev) })
        })
    }

    /// # Safety
    ///
    /// Called by vfio core with a registered device of this driver, with `dev_set->lock` held,
    /// when it is opened for the first time.
    unsafe extern "C" fn open_callback(vdev: *mut bindings::vfio_device) -> c_int {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        from_result(|| {
            // It stays enabled until `close_callback()`.
            let _ = ManuallyDrop::new(T::open(ClosedDevice(device))?);
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by vfio core once for each success of `open_callback()`, with `dev_set->lock` held.
    unsafe extern "C" fn close_callback(vdev: *mut bindings::vfio_device) {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        let DisabledDevice(_) = T::close(EnabledDevice(device));
    }

    /// # Safety
    ///
    /// Called by `vfio_pci_core_disable()` with a registered device of this driver, with
    /// `dev_set->lock` held.
    unsafe extern "C" fn try_reset_callback(core: *mut bindings::vfio_pci_core_device) {
        // SAFETY: By the requirements of this function; the `struct vfio_device` is at offset 0.
        let device = unsafe { Device::<T>::from_vdev(core.cast()) };

        T::quiesced(&Quiesced(device));
    }

    /// # Safety
    ///
    /// Called by `vfio_pci_core_ioctl()` with a device of this driver that the caller has open.
    unsafe extern "C" fn hot_reset_info_callback(
        core: *mut bindings::vfio_pci_core_device,
        arg: *mut bindings::vfio_pci_hot_reset_info,
    ) -> c_long {
        // SAFETY: By the requirements of this function.
        let device = OpenDevice(unsafe { Device::<T>::from_vdev(core.cast()) });

        ioctl_result(hot_reset::info(&device, UserPtr::from_ptr(arg.cast())))
    }

    /// # Safety
    ///
    /// Called by `vfio_pci_core_ioctl()` with a device of this driver that the caller has open.
    unsafe extern "C" fn hot_reset_callback(
        core: *mut bindings::vfio_pci_core_device,
        arg: *mut bindings::vfio_pci_hot_reset,
    ) -> c_long {
        // SAFETY: By the requirements of this function.
        let device = OpenDevice(unsafe { Device::<T>::from_vdev(core.cast()) });

        ioctl_result(hot_reset::reset(&device, UserPtr::from_ptr(arg.cast())))
    }
}

/// Returns what an ioctl returns.
fn ioctl_result(result: Result) -> c_long {
    match result {
        Ok(()) => 0,
        // CAST: A `long` has 32 bits at least.
        Err(error) => error.to_errno() as c_long,
    }
}

/// What iommufd does to a device: the driver is told before and after.
#[cfg(CONFIG_IOMMUFD)]
impl<T: Driver> VTable<T> {
    /// # Safety
    ///
    /// Called by vfio core with a registered device of this driver that is not bound, with
    /// `dev_set->lock` held, a context that it has a reference to, and a place for the ID.
    unsafe extern "C" fn bind_iommufd_callback(
        vdev: *mut bindings::vfio_device,
        ictx: *mut bindings::iommufd_ctx,
        out_device_id: *mut u32,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        from_result(|| {
            T::bind_iommufd(device.data(), super::ContextId::new(ictx), || {
                // SAFETY: By the requirements of this function.
                to_result(unsafe {
                    bindings::vfio_iommufd_physical_bind(vdev, ictx, out_device_id)
                })?;

                // SAFETY: By the requirements of this function.
                Ok(unsafe { *out_device_id })
            })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by vfio core once for each success of `bind_iommufd_callback()`, with
    /// `dev_set->lock` held.
    unsafe extern "C" fn unbind_iommufd_callback(vdev: *mut bindings::vfio_device) {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::unbind_iommufd(device.data(), || {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::vfio_iommufd_physical_unbind(vdev) }
        });
    }

    /// # Safety
    ///
    /// Called by vfio core with a registered device of this driver that is bound, with
    /// `dev_set->lock` held, and what `vfio_iommufd_physical_attach_ioas()` takes.
    unsafe extern "C" fn attach_ioas_callback(
        vdev: *mut bindings::vfio_device,
        pt_id: *mut u32,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::attach_iommufd(device.data(), || {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::vfio_iommufd_physical_attach_ioas(vdev, pt_id) }
        })
    }

    /// # Safety
    ///
    /// As for `attach_ioas_callback()`.
    unsafe extern "C" fn detach_ioas_callback(vdev: *mut bindings::vfio_device) {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::attach_iommufd(device.data(), || {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::vfio_iommufd_physical_detach_ioas(vdev) }
        })
    }

    /// # Safety
    ///
    /// As for `attach_ioas_callback()`.
    unsafe extern "C" fn pasid_attach_ioas_callback(
        vdev: *mut bindings::vfio_device,
        pasid: u32,
        pt_id: *mut u32,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::attach_iommufd(device.data(), || {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::vfio_iommufd_physical_pasid_attach_ioas(vdev, pasid, pt_id) }
        })
    }

    /// # Safety
    ///
    /// As for `attach_ioas_callback()`.
    unsafe extern "C" fn pasid_detach_ioas_callback(vdev: *mut bindings::vfio_device, pasid: u32) {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::attach_iommufd(device.data(), || {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::vfio_iommufd_physical_pasid_detach_ioas(vdev, pasid) }
        })
    }
}
