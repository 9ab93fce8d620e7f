// SPDX-License-Identifier: GPL-2.0

//! The registration of a vfio-pci variant driver with the PCI bus.
//!
//! `pci::Adapter` of the kernel crate does not fit. It keeps its own driver data of a device, where
//! vfio-pci-core wants its `struct vfio_pci_core_device`. It has no `driver_managed_dma`, no error
//! handlers, no override-only IDs and no dynamic IDs.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::{
    attribute::Attributes,
    device::Device,
    dynamic_id::DynamicId,
    Driver, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    container_of,
    device,
    error::{
        from_result,
        to_result, //
    },
    ffi::c_int,
    pci,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// The registration of a [`Driver`] with the PCI bus.
///
/// Dropping it waits until all devices are closed, and unbinds them.
///
/// # Invariants
///
/// `shared` is initialised before `drv` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Driver> {
    #[pin]
    drv: Opaque<Raw>,
    shared: T::Shared,
}

// SAFETY: `shared` is `Sync`, and any thread can add a dynamic ID to `drv`.
unsafe impl<T: Driver> Sync for Registration<T> {}

// SAFETY: `shared` is `Send`, and a driver can be unregistered by any thread.
unsafe impl<T: Driver> Send for Registration<T> {}

/// A driver, and the directory of its devices in sysfs.
#[repr(C)]
struct Raw {
    /// At offset 0, so that a pointer to it is one to all.
    drv: bindings::pci_driver,
    group: bindings::attribute_group,
    /// The end is NULL.
    groups: [*const bindings::attribute_group; 2],
}

impl<T: Driver> Registration<T> {
    /// Registers the driver with the PCI bus.
    ///
    /// It binds only to devices whose driver override names it, and by dynamic IDs. They have
    /// `attributes` in `directory` while they are bound. Fails with [`EBUSY`] if another driver has
    /// the name. May sleep.
    pub(crate) fn new(
        module: &'static ThisModule,
        shared: T::Shared,
        directory: &'static CStr,
        attributes: Attributes<T>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            shared,
            drv <- Opaque::try_ffi_init(move |raw: *mut Raw| {
                if attributes.last().is_none_or(|last| last.is_some()) {
                    return Err(EINVAL);
                }
                // SAFETY: `try_ffi_init()` passes a pointer that is valid for writes. A list of
                // attributes is one of `struct attribute`, which is at offset 0 of each. sysfs
                // does not write to them.
                let drv = unsafe {
                    let mut group: bindings::attribute_group = pin_init::zeroed();
                    group.name = directory.as_char_ptr();
                    group.__bindgen_anon_2.attrs = attributes.as_ptr().cast_mut().cast();
                    (&raw mut (*raw).group).write(group);
                    (&raw mut (*raw).groups).write([&raw const (*raw).group, core::ptr::null()]);

                    &raw mut (*raw).drv
                };
                // SAFETY: As above.
                unsafe {
                    drv.write(pin_init::zeroed());
                    (*drv).dev_groups = (&raw mut (*raw).groups).cast();
                    (*drv).name = T::NAME.as_char_ptr();
                    (*drv).id_table = VTable::<T>::IDS.as_ptr();
                    (*drv).probe = Some(VTable::<T>::probe_callback);
                    (*drv).remove = Some(VTable::<T>::remove_callback);
                    (*drv).sriov_configure = Some(VTable::<T>::sriov_configure_callback);
                    (*drv).err_handler = VTable::<T>::ERR_HANDLERS;
                    // vfio claims the DMA ownership of a group when user space opens it.
                    (*drv).driver_managed_dma = true;
                }

                // SAFETY: `drv` is initialised, and pinned until it is unregistered.
                to_result(unsafe { bindings::vfio_rs_register_driver(drv, module.as_ptr()) })
            }),
        })
    }

    /// Adds `id` to the driver, and binds to existing devices with this ID and no driver.
    ///
    /// Fails with [`ENOMEM`] or the error of binding. May sleep.
    pub(crate) fn add_dynid(&self, id: &DynamicId) -> Result {
        // SAFETY: The driver is registered.
        to_result(unsafe {
            bindings::pci_add_dynid(
                self.drv.get().cast(),
                id.vendor,
                id.device,
                id.subvendor,
                id.subdevice,
                id.class,
                id.class_mask,
                0,
            )
        })
    }
}

#[pinned_drop]
impl<T: Driver> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The driver is registered for as long as `self` is.
        unsafe { bindings::pci_unregister_driver(self.drv.get().cast()) };
    }
}

/// The callbacks and IDs of a `struct pci_driver`.
struct VTable<T: Driver>(PhantomData<T>);

impl<T: Driver> VTable<T> {
    /// Matches any device whose driver override names the driver.
    const IDS: &'static [bindings::pci_device_id; 2] = &[
        bindings::pci_device_id {
            vendor: DynamicId::ANY,
            device: DynamicId::ANY,
            subvendor: DynamicId::ANY,
            subdevice: DynamicId::ANY,
            override_only: bindings::PCI_ID_F_VFIO_DRIVER_OVERRIDE,
            ..pin_init::zeroed()
        },
        pin_init::zeroed(),
    ];

    /// The handlers for resets log what the PCI core logs for drivers without them.
    const ERR_HANDLERS: &'static bindings::pci_error_handlers = &bindings::pci_error_handlers {
        error_detected: Some(Self::error_detected_callback),
        reset_prepare: Some(Self::reset_prepare_callback),
        reset_done: Some(Self::reset_done_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the PCI bus with a device that is bound to the driver, and its lock held.
    unsafe extern "C" fn error_detected_callback(
        pdev: *mut bindings::pci_dev,
        state: bindings::pci_channel_state_t,
    ) -> bindings::pci_ers_result_t {
        // SAFETY: By the requirements of this function.
        unsafe {
            T::disturbed(Device::<T>::of_bound(pdev).data());
            bindings::vfio_pci_core_aer_err_detected(pdev, state)
        }
    }

    /// # Safety
    ///
    /// Called by the PCI bus with a device that is bound to the driver, and its lock held.
    unsafe extern "C" fn reset_prepare_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: By the requirements of this function, the device is registered, or remove has not
        // dropped its data yet.
        unsafe {
            T::disturbed(Device::<T>::of_bound(pdev).data());
            bindings::vfio_pci_core_reset_prepare(pdev);
        }
    }

    /// Suspends a function later that vfio-pci-core has kept awake during the reset.
    ///
    /// # Safety
    ///
    /// As for `reset_prepare_callback()`.
    unsafe extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `reset_prepare_callback()`.
        let device = unsafe { Device::<T>::of_bound(pdev) };
        dev_warn!(device.pdev(), "reset done\n");
        // SAFETY: By the requirements of this function.
        unsafe { bindings::vfio_rs_suspend_later(pdev) };
    }

    /// # Safety
    ///
    /// Called by the PCI bus with a valid device, its lock held, and a driver that is the `drv` of
    /// a [`Registration<T>`].
    unsafe extern "C" fn probe_callback(
        pdev: *mut bindings::pci_dev,
        _id: *const bindings::pci_device_id,
    ) -> c_int {
        // SAFETY: The bus sets the driver of a device before it calls probe.
        let drv = unsafe { container_of!((*pdev).dev.driver, bindings::pci_driver, driver) };
        // SAFETY: By the requirements of this function. `drv` is at offset 0 of its `Raw`.
        let registration =
            unsafe { container_of!(drv.cast::<Opaque<Raw>>(), Registration<T>, drv) };
        // SAFETY: By the type invariants of `Registration`, `shared` is initialised while the
        // driver is registered, as it is for the duration of this call.
        let shared = unsafe { &(*registration).shared };
        // SAFETY: `pci::Device` is a transparent wrapper of `struct pci_dev`, and probe is the
        // context that `Core` stands for.
        let pdev = unsafe { &*pdev.cast::<pci::Device<device::Core<'_>>>() };

        from_result(|| {
            // An override matches whatever the IDs are.
            if T::CLASS.is_some_and(|class| class != pdev.pci_class()) {
                dev_warn!(pdev, "{} does not drive functions of its class\n", T::NAME);
                return Err(ENODEV);
            }
            T::accept(pdev)?;
            Device::<T>::register(pdev, |core| T::probe(pdev, core, shared))?;
            Ok(0)
        })
    }

    /// Enables `nr_virtfn` VFs, or disables all if it is 0.
    ///
    /// vfio-pci-core sets the driver override of new VFs to the name of the driver. Fails with
    /// [`ENOENT`] if the driver does not allow SR-IOV, like the PCI bus without this callback.
    ///
    /// # Safety
    ///
    /// Called by the PCI bus with a device that is bound to the driver, and its lock held.
    unsafe extern "C" fn sriov_configure_callback(
        pdev: *mut bindings::pci_dev,
        nr_virtfn: c_int,
    ) -> c_int {
        if !T::allows_sriov() {
            return ENOENT.to_errno();
        }

        // SAFETY: By the requirements of this function; `Device::register()` has set the driver
        // data.
        unsafe {
            let core = bindings::dev_get_drvdata(&raw mut (*pdev).dev);
            bindings::vfio_pci_core_sriov_configure(core.cast(), nr_virtfn)
        }
    }

    /// # Safety
    ///
    /// Called by the PCI bus once for each success of `probe_callback()`, with the device's lock
    /// held.
    unsafe extern "C" fn remove_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: `pci::Device` is a transparent wrapper of `struct pci_dev`, and remove is the
        // context that `Core` stands for.
        let pdev = unsafe { &*pdev.cast::<pci::Device<device::Core<'_>>>() };

        // SAFETY: By the requirements of this function.
        unsafe { Device::<T>::unregister(pdev) };
    }
}
