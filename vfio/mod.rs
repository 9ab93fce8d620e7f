// SPDX-License-Identifier: GPL-2.0

//! Abstractions for vfio-pci variant drivers, on vfio core and vfio-pci-core.
//!
//! All unsafe code of the module is here and in the bindings. A driver implements [`Driver`] and
//! keeps a [`Registration`] of it:
//!
//! - [`Registration`] registers the `struct pci_driver`. Probe gets the data of a new device from
//!   the driver and registers the device with vfio. Remove undoes that in reverse.
//! - vfio passes a device to every driver callback. User space opens it in two steps that types
//!   keep in order: a [`ClosedDevice`] can only be enabled, and an [`EnabledDevice`] can only be
//!   disabled. A [`DisabledDevice`] proves to vfio core that the driver did so.
//! - An [`OpenDevice`] asks for a hot reset as an [`Owner`]. The driver wraps each iommufd
//!   operation (bind, unbind, attach).
//! - A [`Bar`] gives the driver the registers of an open device.
//! - An [`Attribute`] is a file in sysfs of each function that is bound.
//! - [`Function`] is a PCI function for its own resets, [`BoundFunction`] for those of its slot or
//!   bus, which also take the functions of a settled reset domain.
//!
//! Files, lowest first. A file uses only files before it. `driver` and `device` need each other, as
//! in `rust/kernel/fwctl.rs`. Only `domain` knows the reflck, whose `Address` and `ResetScope` are
//! plain data.
//!
//! - `params`, `dynamic_id`, `pci`, `core`, `record`, `news`
//! - `function`, `gone`, `clean`, `status`, `trace`, `domain`, `owner`
//! - `driver`, `device`
//! - `bar`, `attribute`, `pci_ops`, `ops`, `registration`
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

mod attribute;
mod bar;
mod clean;
mod core;
mod device;
mod domain;
mod driver;
mod dynamic_id;
mod function;
mod gone;
mod news;
mod ops;
mod owner;
mod params;
mod pci;
mod pci_ops;
mod record;
mod registration;
mod status;
mod trace;

pub(crate) use self::{
    attribute::{
        Attribute,
        Attributes, //
    },
    bar::Bar,
    core::CoreDevice,
    device::{
        ClosedDevice,
        DisabledDevice,
        EnabledDevice,
        OpenDevice,
        Quiesced, //
    },
    driver::{
        Driver,
        Options, //
    },
    dynamic_id::DynamicId,
    function::{
        log_ratelimited,
        BoundFunction,
        Function, //
    },
    owner::{
        Context,
        ContextId,
        Dependent,
        Owner, //
    },
    params::{
        Override,
        Params,
        DRIVER_NAME, //
    },
    pci::BoundTo,
    registration::Registration,
    status::{
        ResetBy,
        DIRECTORY,
        STATE, //
    },
    trace::TracedReset, //
};
