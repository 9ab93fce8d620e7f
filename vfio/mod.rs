// SPDX-License-Identifier: GPL-2.0

//! Abstractions for vfio-pci variant drivers, on vfio core and vfio-pci-core.
//!
//! All of the module's unsafe code is here and in the bindings. A driver implements [`Driver`] and
//! keeps a [`Registration`] of it:
//!
//! - [`Registration`] registers the `struct pci_driver`. Probe asks the driver for the data of a
//!   new device, puts it into the device's allocation and registers the device with vfio; remove
//!   undoes that in reverse.
//! - A device is what vfio calls the driver with. User space opens it in two steps that types
//!   keep in order: a [`ClosedDevice`] can only be enabled, and an [`EnabledDevice`] can only be
//!   disabled. A [`DisabledDevice`] proves to vfio core that this has been done.
//! - An [`OpenDevice`] calls for a hot reset, in the name of an [`Owner`]. What iommufd does to a
//!   device is told to the driver before and after.
//! - [`Function`] is a PCI function as far as resets are concerned. It is usable from the time of
//!   probe on, by any thread. [`Fences`] keep users away from several, which need the proof that
//!   nobody opens or closes one: it is that of `reflck.rs`.
//! - What happens to a function, and how long it takes, can be seen by tracepoints.
//!
//! C headers: [`include/linux/vfio.h`](srctree/include/linux/vfio.h),
//! [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

mod device;
mod driver;
mod function;
mod hot_reset;
pub(crate) mod params;
mod trace;

pub(crate) use self::device::{
    ClosedDevice,
    CoreDevice,
    DisabledDevice,
    EnabledDevice,
    OpenDevice,
    Options,
    Quiesced, //
};
pub(crate) use self::driver::{
    Driver,
    DynamicId,
    Name,
    Registration, //
};
pub(crate) use self::function::{
    log_ratelimited,
    BoundTo,
    Fences,
    Function,
    Resumed, //
};
pub(crate) use self::hot_reset::{
    Context,
    ContextId,
    Dependent,
    Owner, //
};
