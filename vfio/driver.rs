// SPDX-License-Identifier: GPL-2.0

//! The registration of a vfio-pci variant driver with the PCI bus.
//!
//! The kernel crate's own adapter, `pci::Adapter`, does not fit: it keeps data of its own as the
//! driver data of a device, where vfio-pci-core wants its `struct vfio_pci_core_device`, and it
//! knows neither `driver_managed_dma` nor error handlers, override-only IDs or dynamic IDs.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::{
    device::{
        CoreDevice,
        Device, //
    },
    hot_reset::{
        Context,
        Dependent,
        Owner, //
    },
    ClosedDevice,
    ContextId,
    DisabledDevice,
    EnabledDevice,
    OpenDevice,
    Options,
    Quiesced, //
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
    fmt,
    pci,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// A vfio-pci variant driver.
pub(crate) trait Driver: Sized + Send + Sync + 'static {
    /// The name of the driver and of its module.
    const NAME: &'static CStr;

    /// The name of the driver that this one can take the place of, see [`Name::DropIn`].
    const DROP_IN_NAME: &'static CStr;

    /// What all devices of the driver share. Owned by its [`Registration`].
    type Shared: Send + Sync + 'static;

    /// What the driver keeps for each device. It exists before user space can open the device, and
    /// until after it cannot any more.
    type Data: Send + Sync + 'static;

    /// Returns how vfio-pci-core shall treat a new device.
    fn options() -> Options;

    /// Returns whether root may enable the VFs of a PF that is bound to the driver.
    fn allows_sriov() -> bool;

    /// Decides whether to take `pdev`, and prepares the driver's data for it. `core` is what
    /// vfio-pci-core will know it by.
    ///
    /// Called with the device lock of `pdev` held; may sleep. The device is registered with vfio
    /// as soon as the data is there.
    fn probe(
        pdev: &pci::Device<device::Core<'_>>,
        core: CoreDevice,
        shared: &Self::Shared,
    ) -> Result<Self::Data>;

    /// Called when the device is unregistered from vfio and nobody uses it any more, before its
    /// data is dropped.
    ///
    /// Called with the device lock of `pdev` held; may sleep.
    fn unbind(pdev: &pci::Device<device::Core<'_>>, data: &Self::Data);

    /// Called when user space opens the device for the first time, with its `dev_set->lock` held.
    /// May sleep.
    fn open(device: ClosedDevice<'_, Self>) -> Result<EnabledDevice<'_, Self>>;

    /// Called when the last user closes the device, with its `dev_set->lock` held. May sleep.
    fn close(device: EnabledDevice<'_, Self>) -> DisabledDevice<'_, Self>;

    /// Called once while a device is disabled: by [`Driver::close`], or after an open that failed.
    /// May sleep.
    fn quiesced(device: &Quiesced<'_, Self>);

    /// Called when a device is to be bound to an iommufd context, before it is opened, with its
    /// `dev_set->lock` held. `bind` does it, and returns the ID that the device has there. May
    /// sleep.
    fn bind_iommufd(
        data: &Self::Data,
        context: ContextId,
        bind: impl FnOnce() -> Result<u32>,
    ) -> Result;

    /// Called when a device is to be unbound from its context, after it was closed or could not be
    /// opened, with its `dev_set->lock` held. `unbind` does it. May sleep.
    fn unbind_iommufd(data: &Self::Data, unbind: impl FnOnce());

    /// Called when it is to change what a device is attached to in its context, with its
    /// `dev_set->lock` held. `change` does it. May sleep.
    fn attach_iommufd<R>(data: &Self::Data, change: impl FnOnce() -> R) -> R;

    /// Finds out what the user of a device, who has it bound to `context`, has of the functions
    /// that a slot or bus reset would affect. Each is [`Dependent::NOT_OWNED`] so far. Called with
    /// no lock held; may sleep.
    fn hot_reset_info(
        device: &OpenDevice<'_, Self>,
        context: &Context<'_>,
        dependents: &mut [Dependent],
    );

    /// Resets the slot or bus of a device for its user, who claims to be the owner of all that is
    /// affected. Called with no lock held; may sleep.
    ///
    /// Gives [`EINVAL`] if the user is not, or if the reset would affect a function that the driver
    /// does not have, or one that has virtual functions; [`EBUSY`] if one is being accessed,
    /// [`EAGAIN`] if a lock is held elsewhere, [`ENOMEM`], and what waking a function gives.
    fn hot_reset(device: &OpenDevice<'_, Self>, owner: &Owner<'_>) -> Result;
}

/// Which name a [`Driver`] is registered under: that of the PCI driver, which driver overrides
/// give, and of the vfio driver, which VFs are captured for.
#[derive(Clone, Copy)]
pub(crate) enum Name {
    /// Its own.
    Own,
    /// That of the driver that it takes the place of, for programs that know no other. Only one of
    /// them can be registered at a time.
    DropIn,
}

impl Name {
    /// Returns which name of a driver `name` is, if it is one.
    pub(crate) fn parse<T: Driver>(name: &CStr) -> Option<Self> {
        [Self::Own, Self::DropIn]
            .into_iter()
            .find(|known| known.of::<T>() == name)
    }

    /// Returns what it is for a driver.
    fn of<T: Driver>(self) -> &'static CStr {
        match self {
            Self::Own => T::NAME,
            Self::DropIn => T::DROP_IN_NAME,
        }
    }
}

/// The registration of a [`Driver`] with the PCI bus.
///
/// Dropping it unbinds all its devices, for which it waits until they are closed.
///
/// # Invariants
///
/// `name` and `shared` are initialised before `drv` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Driver> {
    #[pin]
    drv: Opaque<bindings::pci_driver>,
    name: Name,
    shared: T::Shared,
}

// SAFETY: `shared` is `Sync`, and what methods do with `drv` is allowed from any thread.
unsafe impl<T: Driver> Sync for Registration<T> {}

// SAFETY: `shared` is `Send`, and a driver can be unregistered by any thread.
unsafe impl<T: Driver> Send for Registration<T> {}

impl<T: Driver> Registration<T> {
    /// Registers the driver with the PCI bus.
    ///
    /// May sleep. Devices are bound to it by their driver override or by a dynamic ID, never by
    /// what they are. Gives [`EBUSY`] if another driver has the name.
    pub(crate) fn new(
        module: &'static ThisModule,
        name: Name,
        shared: T::Shared,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            name,
            shared,
            drv <- Opaque::try_ffi_init(move |drv: *mut bindings::pci_driver| {
                // SAFETY: `try_ffi_init()` passes a pointer that is valid for writes.
                unsafe {
                    drv.write(pin_init::zeroed());
                    (*drv).name = name.of::<T>().as_char_ptr();
                    (*drv).id_table = VTable::<T>::IDS.as_ptr();
                    (*drv).probe = Some(VTable::<T>::probe_callback);
                    (*drv).remove = Some(VTable::<T>::remove_callback);
                    (*drv).sriov_configure = Some(VTable::<T>::sriov_configure_callback);
                    (*drv).err_handler = &raw const bindings::vfio_pci_core_err_handlers;
                    // vfio claims the DMA ownership of a group when user space opens it.
                    (*drv).driver_managed_dma = true;
                }

                // SAFETY: `drv` is initialised, and pinned until it is unregistered.
                let result = to_result(unsafe {
                    bindings::__pci_register_driver(drv, module.as_ptr(), T::NAME.as_char_ptr())
                });

                if result == Err(EBUSY) {
                    pr_err!(
                        "cannot be registered as {}: another driver that is loaded has this name\n",
                        name.of::<T>()
                    );
                }
                result
            }),
        })
    }

    /// Adds `id` to the devices that the driver binds to, and binds to those that are there and
    /// have no driver.
    ///
    /// Gives [`ENOMEM`], or the error of binding. May sleep.
    pub(crate) fn add_dynid(&self, id: &DynamicId) -> Result {
        // SAFETY: The driver is registered.
        to_result(unsafe {
            bindings::pci_add_dynid(
                self.drv.get(),
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
        unsafe { bindings::pci_unregister_driver(self.drv.get()) };
    }
}

/// A PCI ID that is added to a driver at run time.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct DynamicId {
    vendor: u32,
    device: u32,
    subvendor: u32,
    subdevice: u32,
    class: u32,
    class_mask: u32,
}

impl DynamicId {
    const ANY: u32 = !0;

    /// Reads an ID in the form `vendor:device[:subvendor[:subdevice[:class[:class_mask]]]]`, each
    /// in hexadecimal.
    ///
    /// Like the `sscanf()` of vfio-pci, it takes what precedes the first character that does not
    /// fit, if that is a vendor and a device at least; else gives [`EINVAL`]. Unlike it, it gives
    /// that for a number of more than 32 bits too, of which vfio-pci takes the lower ones.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts = [Self::ANY, Self::ANY, Self::ANY, Self::ANY, 0, 0];
        let mut found = 0;
        let mut rest = text;

        for part in &mut parts {
            let number = rest.trim_start();
            let number = number
                .strip_prefix("0x")
                .or_else(|| number.strip_prefix("0X"))
                .unwrap_or(number);
            let end = number
                .find(|c: char| !c.is_ascii_hexdigit())
                .unwrap_or(number.len());
            if end == 0 {
                break;
            }
            *part = u32::from_str_radix(&number[..end], 16).map_err(|_| EINVAL)?;
            found += 1;
            match number[end..].strip_prefix(':') {
                Some(more) => rest = more,
                None => break,
            }
        }
        if found < 2 {
            return Err(EINVAL);
        }

        let [vendor, device, subvendor, subdevice, class, class_mask] = parts;

        Ok(Self {
            vendor,
            device,
            subvendor,
            subdevice,
            class,
            class_mask,
        })
    }
}

impl fmt::Display for DynamicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!(
            "[{:04x}:{:04x}[{:04x}:{:04x}]] class {:#08x}/{:08x}",
            self.vendor,
            self.device,
            self.subvendor,
            self.subdevice,
            self.class,
            self.class_mask
        ))
    }
}

/// The callbacks and IDs of a `struct pci_driver`.
struct VTable<T: Driver>(PhantomData<T>);

impl<T: Driver> VTable<T> {
    /// Any device, if its driver override names the driver.
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
        // SAFETY: By the requirements of this function.
        let registration = unsafe {
            container_of!(
                drv.cast::<Opaque<bindings::pci_driver>>(),
                Registration<T>,
                drv
            )
        };
        // SAFETY: By the type invariants of `Registration`, `name` and `shared` are initialised
        // while the driver is registered, as it is for the duration of this call.
        let (name, shared) = unsafe { ((*registration).name, &(*registration).shared) };
        // SAFETY: `pci::Device` is a transparent wrapper of `struct pci_dev`, and probe is the
        // context that `Core` stands for.
        let pdev = unsafe { &*pdev.cast::<pci::Device<device::Core<'_>>>() };

        from_result(|| {
            Device::<T>::register(pdev, name, |core| T::probe(pdev, core, shared))?;
            Ok(0)
        })
    }

    /// Enables as many VFs as it is told, or disables them all. VFs that appear are captured for
    /// the driver by their driver override, which gives the [`Name`] that it is registered under.
    ///
    /// Gives [`ENOENT`] if the driver does not allow it, as the PCI bus does for a driver without
    /// this callback.
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
