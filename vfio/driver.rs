// SPDX-License-Identifier: GPL-2.0

//! The trait of a vfio-pci variant driver.

use super::{
    core::CoreDevice,
    device::{
        ClosedDevice,
        DisabledDevice,
        EnabledDevice,
        OpenDevice,
        Quiesced, //
    },
    owner::{
        Context,
        ContextId,
        Dependent,
        Owner, //
    }, //
};
use kernel::{
    device,
    pci,
    prelude::*,
    sync::aref::ARef, //
};

/// Options of vfio-pci-core for a device, fixed from probe to remove.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Do not use PCI 2.3 style INTx masking.
    pub(crate) nointxmask: bool,
    /// Deny access to legacy VGA addresses, and leave them to other VGA devices.
    pub(crate) disable_vga: bool,
    /// Leave the function in D0 while it is unused.
    pub(crate) disable_idle_d3: bool,
}

/// A vfio-pci variant driver. All methods may sleep.
pub(crate) trait Driver: Sized + Send + Sync + 'static {
    /// The name of the driver. Driver overrides and captured VFs refer to it.
    const NAME: &'static CStr;

    /// The class of the functions that it drives, if not all.
    const CLASS: Option<pci::Class> = None;

    /// The data that all devices of the driver share.
    type Shared: Send + Sync + 'static;

    /// The data of a device. Exists from before user space can open the device until after that.
    type Data: Send + Sync + 'static;

    /// Returns the options of a new device.
    fn options() -> Options;

    /// Returns whether root may enable the VFs of a bound PF.
    fn allows_sriov() -> bool;

    /// Accepts or rejects `pdev`, before anything is allocated for it.
    ///
    /// Called with the device lock of `pdev` held.
    fn accept(pdev: &pci::Device<device::Core<'_>>) -> Result;

    /// Makes the data of the device of `pdev`.
    ///
    /// Called with the device lock of `pdev` held. User space can open the device right after this.
    fn probe(
        pdev: &pci::Device<device::Core<'_>>,
        core: ARef<CoreDevice>,
        shared: &Self::Shared,
    ) -> Result<Self::Data>;

    /// Called after user space can open the device. The device lock of its function is held.
    fn registered(data: &Self::Data);

    /// Called when a reset of the function begins or an error was detected. The device lock is
    /// held. Resets by the driver itself call it as well, except at close.
    fn disturbed(data: &Self::Data);

    /// Called before a device waits for its last user in order to be unbound.
    ///
    /// Called with the device lock of its function held, which stays held.
    fn begin_unbind(data: &Self::Data);

    /// Releases a device that has no users any more, before its data is dropped.
    ///
    /// Called with the device lock of `pdev` held.
    fn unbind(pdev: &pci::Device<device::Core<'_>>, data: &Self::Data);

    /// Opens the device for its first user. Called with its `dev_set->lock` held.
    fn open(device: ClosedDevice<'_, Self>) -> Result<EnabledDevice<'_, Self>>;

    /// Returns whether the open in progress can skip the reset of the function, which it has woken.
    fn is_clean(data: &Self::Data) -> bool;

    /// Called while a device is disabled, by [`Driver::close`] or by an open that fails late.
    ///
    /// The function is quiesced. If this returns true, the driver calls [`Function::finish_close`]
    /// from another context, instead of the rest of the close and of [`Driver::quiesced`].
    ///
    /// [`Function::finish_close`]: super::Function::finish_close
    fn finish_later(data: &Self::Data) -> bool;

    /// Closes the device for its last user. Called with its `dev_set->lock` held.
    fn close(device: EnabledDevice<'_, Self>) -> DisabledDevice<'_, Self>;

    /// Called once while a device is disabled, unless [`Driver::finish_later`] returned true.
    ///
    /// The function is still awake.
    fn quiesced(device: &Quiesced<'_, Self>);

    /// Binds a closed device to an iommufd context. Called with its `dev_set->lock` held.
    ///
    /// Must call `bind`, which returns the ID of the device in the context.
    fn bind_iommufd(
        data: &Self::Data,
        context: ContextId,
        bind: impl FnOnce() -> Result<u32>,
    ) -> Result;

    /// Unbinds a closed device from its context. Called with its `dev_set->lock` held.
    ///
    /// Must call `unbind`.
    fn unbind_iommufd(data: &Self::Data, unbind: impl FnOnce());

    /// Attaches a bound device with `attach`. Called with its `dev_set->lock` held.
    fn attach_iommufd(data: &Self::Data, attach: impl FnOnce() -> Result) -> Result;

    /// Detaches a bound device. Called with its `dev_set->lock` held.
    ///
    /// Must call `detach`.
    fn detach_iommufd(data: &Self::Data, detach: impl FnOnce());

    /// Fills in the device ID of each dependent in `context`, or whether the caller owns it.
    ///
    /// Each is [`Dependent::NOT_OWNED`] so far. Fails with [`ERESTARTNOINTR`] if there is a signal.
    fn hot_reset_info(
        device: &OpenDevice<'_, Self>,
        context: &Context<'_>,
        dependents: &mut [Dependent],
    ) -> Result;

    /// Resets the slot or bus of a device for `owner`.
    ///
    /// Fails with [`EINVAL`] if `owner` does not own every affected function, if one of them is not
    /// bound to the driver, or has virtual functions; with [`EBUSY`] if a function is being
    /// accessed, [`EAGAIN`] if a lock is held elsewhere, or the error of a resume.
    fn hot_reset(device: &OpenDevice<'_, Self>, owner: &Owner<'_>) -> Result;
}
