// SPDX-License-Identifier: GPL-2.0

//! The ops of a device for vfio core, and its registration.
//!
//! C header: [`include/linux/vfio.h`](srctree/include/linux/vfio.h)

use super::{
    core::CoreDevice,
    device::{
        ClosedDevice,
        Device,
        DisabledDevice,
        EnabledDevice, //
    },
    pci::as_raw,
    pci_ops::PciVTable,
    Driver, //
};
use crate::bindings;
use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::{
        offset_of,
        ManuallyDrop, //
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
    ffi::c_int,
    pci,
    prelude::*,
    str::as_char_ptr_in_const_context,
    sync::aref::ARef, //
};

impl<T: Driver> Device<T> {
    /// Allocates a device for `pdev` with the driver's `data`, and registers it.
    ///
    /// User space can open it after that. vfio-pci-core wants the device to be the driver data of
    /// `pdev`. Fails with the error of `data` or `vfio_pci_core_register_device()`: [`EINVAL`] for
    /// a bridge, [`EBUSY`] for a PF whose VFs are enabled.
    pub(super) fn register(
        pdev: &pci::Device<device::Core<'_>>,
        data: impl FnOnce(ARef<CoreDevice>) -> Result<T::Data>,
    ) -> Result {
        const {
            assert!(offset_of!(Device<T>, core) == 0);
            assert!(offset_of!(bindings::vfio_pci_core_device, vdev) == 0);
        }

        // SAFETY: `pdev` is valid.
        let dev = unsafe { &raw mut (*as_raw(pdev)).dev };

        // SAFETY: `dev` is valid, and the `init` of the static ops knows the layout. The size is
        // padded to the alignment, which kmalloc guarantees for such a size.
        let vdev = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(
                Layout::new::<Self>().pad_to_align().size(),
                dev,
                VTable::<T>::OPS,
            )
        })?;
        let this = vdev.cast::<Self>();

        // INVARIANT: `_vfio_alloc_device()` has called `init_callback()`.
        // SAFETY: It returned a pointer that is not NULL and owns a reference.
        let core = unsafe { ARef::from_raw(NonNull::new_unchecked(vdev.cast::<CoreDevice>())) };
        let data = data(core.clone())?;

        // INVARIANT: This initialises `data` before the device is registered.
        // SAFETY: There is no other reference to `data` until the device is registered. The bus
        // clears the driver data if this fails.
        let result = to_result(unsafe {
            (&raw mut (*this).data).cast::<T::Data>().write(data);
            (*core.as_raw()).pci_ops = PciVTable::<T>::OPS;
            bindings::dev_set_drvdata(dev, this.cast());
            bindings::vfio_pci_core_register_device(core.as_raw())
        });

        match result {
            Ok(()) => {
                // SAFETY: `data` is initialised, and remove cannot drop it before probe is over.
                T::registered(unsafe { (*this).data() });
                // The reference is for `unregister()`.
                _ = ARef::into_raw(core);
            }
            // SAFETY: The device is not registered, so there is no other reference to `data`.
            Err(_) => unsafe { (*this).data.assume_init_drop() },
        }

        result
    }

    /// Waits for the last user of the device of `pdev`, unregisters and drops it.
    ///
    /// # Safety
    ///
    /// Must be called once for each success of [`Device::register`], from the remove callback of
    /// the same driver.
    pub(super) unsafe fn unregister(pdev: &pci::Device<device::Core<'_>>) {
        // SAFETY: By the requirements of this function, `register()` set the driver data, which is
        // not NULL, and left a reference.
        let (this, core) = unsafe {
            let data = bindings::dev_get_drvdata(&raw mut (*as_raw(pdev)).dev);
            let core = NonNull::new_unchecked(data.cast::<CoreDevice>());

            (data.cast::<Self>(), ARef::from_raw(core))
        };

        // SAFETY: The device is registered. No callback runs after that, so that the only reference
        // to the device is the one for `unbind()`, which ends before `data` is dropped.
        unsafe {
            T::begin_unbind((*this).data());
            bindings::vfio_pci_core_unregister_device(core.as_raw());
            T::unbind(pdev, (*this).data());
            (*this).data.assume_init_drop();
        }
    }
}

/// The ops of a device. An op that only passes through is the function of vfio-pci-core itself.
struct VTable<T: Driver>(PhantomData<T>);

impl<T: Driver> VTable<T> {
    const OPS: &'static bindings::vfio_device_ops = &bindings::vfio_device_ops {
        name: as_char_ptr_in_const_context(T::NAME).cast_mut(),
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
    };

    /// Initialises a device that `_vfio_alloc_device()` has allocated.
    ///
    /// # Safety
    ///
    /// Called by vfio core with a zeroed device of this driver.
    unsafe extern "C" fn init_callback(vdev: *mut bindings::vfio_device) -> c_int {
        let core = vdev.cast::<bindings::vfio_pci_core_device>();
        let options = T::options();

        // SAFETY: No other thread knows the device yet.
        unsafe {
            (*core).set_nointxmask(options.nointxmask);
            (*core).set_disable_vga(options.disable_vga);
            (*core).set_disable_idle_d3(options.disable_idle_d3);
        }

        // SAFETY: vfio core has set `vdev->dev`, the device of a `struct pci_dev`.
        unsafe { bindings::vfio_pci_core_init_dev(vdev) }
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

        let _: DisabledDevice<'_, T> = T::close(EnabledDevice(device));
    }
}

/// The iommufd operations, which the driver wraps.
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

        let context = super::ContextId::new(ictx);
        let bind = || {
            // SAFETY: By the requirements of this function.
            to_result(unsafe { bindings::vfio_iommufd_physical_bind(vdev, ictx, out_device_id) })?;

            // SAFETY: By the requirements of this function.
            Ok(unsafe { *out_device_id })
        };

        from_result(|| T::bind_iommufd(device.data(), context, bind).map(|()| 0))
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

        let attach = || {
            // SAFETY: By the requirements of this function.
            to_result(unsafe { bindings::vfio_iommufd_physical_attach_ioas(vdev, pt_id) })
        };

        from_result(|| T::attach_iommufd(device.data(), attach).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for `attach_ioas_callback()`.
    unsafe extern "C" fn detach_ioas_callback(vdev: *mut bindings::vfio_device) {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::detach_iommufd(device.data(), || {
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

        let attach = || {
            // SAFETY: By the requirements of this function.
            to_result(unsafe {
                bindings::vfio_iommufd_physical_pasid_attach_ioas(vdev, pasid, pt_id)
            })
        };

        from_result(|| T::attach_iommufd(device.data(), attach).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for `attach_ioas_callback()`.
    unsafe extern "C" fn pasid_detach_ioas_callback(vdev: *mut bindings::vfio_device, pasid: u32) {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(vdev) };

        T::detach_iommufd(device.data(), || {
            // SAFETY: By the requirements of this function.
            unsafe { bindings::vfio_iommufd_physical_pasid_detach_ioas(vdev, pasid) }
        })
    }
}
