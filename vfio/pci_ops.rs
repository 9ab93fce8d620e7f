// SPDX-License-Identifier: GPL-2.0

//! The ops of a device for vfio-pci-core.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use super::{
    device::{
        Device,
        OpenDevice,
        Quiesced, //
    },
    owner::{
        Context,
        Dependent,
        Owner, //
    },
    Driver, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*, //
};

/// The ops. vfio-pci-core calls them with devices of the driver.
pub(super) struct PciVTable<T: Driver>(PhantomData<T>);

impl<T: Driver> PciVTable<T> {
    pub(super) const OPS: &'static bindings::vfio_pci_device_ops = &bindings::vfio_pci_device_ops {
        #[cfg(CONFIG_VFIO_PCI_DMABUF)]
        get_dmabuf_phys: Some(bindings::vfio_pci_core_get_dmabuf_phys),
        #[cfg(not(CONFIG_VFIO_PCI_DMABUF))]
        get_dmabuf_phys: None,
        reset_ops: core::ptr::from_ref(Self::RESET_OPS),
    };

    /// With these each device has a set for itself, so `dev_set->lock` only serialises its open and
    /// close.
    const RESET_OPS: &'static bindings::vfio_pci_reset_ops = &bindings::vfio_pci_reset_ops {
        try_reset: Some(Self::try_reset_callback),
        hot_reset: Some(Self::hot_reset_callback),
        dependent_ids: Some(Self::dependent_ids_callback),
        is_clean: Some(Self::is_clean_callback),
        defer_disable: Some(Self::defer_disable_callback),
    };

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
    /// Called by `vfio_pci_core_enable()` with a registered device of this driver, with
    /// `dev_set->lock` held.
    unsafe extern "C" fn is_clean_callback(core: *mut bindings::vfio_pci_core_device) -> bool {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(core.cast()) };

        T::is_clean(device.data())
    }

    /// # Safety
    ///
    /// Called by `vfio_pci_core_disable()` with a registered device of this driver, with
    /// `dev_set->lock` held.
    unsafe extern "C" fn defer_disable_callback(core: *mut bindings::vfio_pci_core_device) -> bool {
        // SAFETY: By the requirements of this function.
        let device = unsafe { Device::<T>::from_vdev(core.cast()) };

        T::finish_later(device.data())
    }

    /// # Safety
    ///
    /// Called by `vfio_pci_core_ioctl()` with a device of this driver that the caller has open, and
    /// with open files of groups, or the context of the device.
    unsafe extern "C" fn hot_reset_callback(
        core: *mut bindings::vfio_pci_core_device,
        groups: *mut bindings::vfio_pci_group_info,
        ictx: *mut bindings::iommufd_ctx,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let (device, owner) = unsafe {
            (
                OpenDevice(Device::<T>::from_vdev(core.cast())),
                Owner::new(groups, ictx),
            )
        };

        from_result(|| {
            T::hot_reset(&device, &owner.ok_or(EINVAL)?)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by `vfio_pci_core_ioctl()` with a device of this driver that the caller has open, its
    /// context, and an array of `count` devices.
    unsafe extern "C" fn dependent_ids_callback(
        core: *mut bindings::vfio_pci_core_device,
        ictx: *mut bindings::iommufd_ctx,
        devices: *mut bindings::vfio_pci_dependent_device,
        count: c_uint,
    ) -> c_int {
        // SAFETY: By the requirements of this function. CAST: A `usize` has 32 bits at least.
        let (device, context, dependents) = unsafe {
            (
                OpenDevice(Device::<T>::from_vdev(core.cast())),
                Context::new(ictx),
                Dependent::slice(devices, count as usize),
            )
        };

        from_result(|| {
            T::hot_reset_info(&device, &context.ok_or(EINVAL)?, dependents)?;
            Ok(0)
        })
    }
}
