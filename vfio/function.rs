// SPDX-License-Identifier: GPL-2.0

//! A PCI function and its resets.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::{
    core::CoreDevice,
    news::News,
    params::{
        Overrides,
        Params, //
    },
    pci::{
        address,
        as_raw,
        has_virtual_functions,
        iommu_group_id,
        is_bridge,
        is_on_root_bus,
        BoundTo, //
    },
    record::Record, //
};
use crate::{
    bindings,
    reflck::{
        Address,
        ResetScope, //
    }, //
};
use core::ops::ControlFlow;
use kernel::{
    device,
    error::to_result,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        }, //
    }, //
};

/// A PCI function that vfio-pci-core has a device of. Any thread can use it at any time.
pub(crate) struct Function {
    pdev: ARef<pci::Device>,
    core: ARef<CoreDevice>,
    address: Address,
    is_unbinding: Atomic<bool>,
    record: Record,
    flags: Flags,
    news: News,
    overrides: Overrides,
}

/// The last reset and close of a function, and whether it answers. Only the owner of its claim
/// changes them, or the holder of the reflck.
pub(super) struct Flags {
    /// When its last reset began, a container might map its BARs.
    pub(super) was_mapped: Atomic<bool>,
    /// Work has to finish the close.
    pub(super) is_half_closed: Atomic<bool>,
    /// It did not answer when the driver last looked.
    pub(super) is_gone: Atomic<bool>,
}

impl Function {
    pub(crate) fn new(pdev: &pci::Device<device::Core<'_>>, core: ARef<CoreDevice>) -> Self {
        Self {
            pdev: (&**pdev).into(),
            core,
            address: address(pdev),
            is_unbinding: Atomic::new(false),
            record: Record::new(),
            flags: Flags {
                was_mapped: Atomic::new(false),
                is_half_closed: Atomic::new(false),
                is_gone: Atomic::new(false),
            },
            news: News::new(),
            overrides: Overrides::new(),
        }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        as_raw(&self.pdev)
    }

    pub(super) fn pdev(&self) -> &pci::Device {
        &self.pdev
    }

    pub(super) fn core(&self) -> &CoreDevice {
        &self.core
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn flags(&self) -> &Flags {
        &self.flags
    }

    pub(super) fn news(&self) -> &News {
        &self.news
    }

    pub(crate) fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Returns the parameters of the function at this time.
    pub(crate) fn params(&self) -> Params {
        self.overrides.params()
    }

    /// Returns the generic device, for log messages.
    pub(crate) fn dev(&self) -> &device::Device {
        self.pdev.as_ref()
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Returns whether both functions are in the same IOMMU group. Functions without a group share
    /// none.
    pub(crate) fn shares_iommu_group(&self, other: &Self) -> bool {
        let id = iommu_group_id(&self.pdev);

        id.is_some() && iommu_group_id(&other.pdev) == id
    }

    /// Records that the function is being unbound, with its device lock held until it is.
    pub(crate) fn begin_unbind(&self) {
        self.is_unbinding.store(true, Relaxed);
    }

    pub(crate) fn is_unbinding(&self) -> bool {
        self.is_unbinding.load(Relaxed)
    }

    /// Returns whether an IOMMU confines the DMA of the function to the memory of its user.
    pub(crate) fn has_iommu(&self) -> bool {
        // SAFETY: `self` holds a reference to the device.
        unsafe { bindings::vfio_rs_has_iommu(self.as_raw()) }
    }

    /// Returns whether the kernel knows that the function was unplugged.
    pub(crate) fn is_unplugged(&self) -> bool {
        // SAFETY: `self` holds a reference to the device.
        unsafe { bindings::vfio_rs_pci_is_unplugged(self.as_raw()) }
    }

    /// Returns whether a function answers to an access to its config space, in probe or remove.
    ///
    /// It does not after it was unplugged, or until it has come back from a reset.
    pub(crate) fn is_present(pdev: &pci::Device<device::Core<'_>>) -> bool {
        // SAFETY: The context of `pdev` proves that the device is on its bus.
        unsafe { bindings::pci_device_is_present(as_raw(pdev)) }
    }

    /// Resets a function alone, in probe or remove, with its first method that works. Saves and
    /// restores its config space.
    ///
    /// Fails with [`ENOTTY`] if no method works, or [`EAGAIN`] if a method goes through the bridge
    /// above and that is locked elsewhere. May sleep, about 100 ms.
    pub(crate) fn reset(pdev: &pci::Device<device::Core<'_>>) -> Result {
        // SAFETY: The context of `pdev` proves that the device lock is held.
        to_result(unsafe { bindings::vfio_rs_reset_function(as_raw(pdev)) })
    }
}

/// A PCI function that stays on its bus for `'a`, bound to the driver.
///
/// Only such a function can be asked about a slot or bus reset. Its siblings can be unplugged, and
/// root can unbind the hotplug driver of its slot meanwhile: this looks at them as
/// `vfio_pci_core.c` does.
pub(crate) struct BoundFunction<'a>(&'a pci::Device);

impl<'a> BoundFunction<'a> {
    /// # Safety
    ///
    /// `pdev` must be bound to the driver for `'a`. Probe and remove count as bound.
    pub(super) unsafe fn new(pdev: &'a pci::Device) -> Self {
        Self(pdev)
    }

    /// Returns a function in probe or remove.
    pub(crate) fn in_core(pdev: &'a pci::Device<device::Core<'_>>) -> Self {
        Self(pdev)
    }

    pub(super) fn pdev(&self) -> &'a pci::Device {
        self.0
    }

    /// Returns whether the function has a header of type 1 or 2.
    pub(crate) fn is_bridge(&self) -> bool {
        is_bridge(self.0)
    }

    pub(crate) fn address(&self) -> Address {
        address(self.0)
    }

    /// Returns the slot of the function if it can be reset, else NULL.
    fn resettable_slot(&self) -> *mut bindings::pci_slot {
        // SAFETY: The reference proves that the device is valid.
        let slot = unsafe { (*as_raw(self.0)).slot };

        // SAFETY: The device is on its bus, so its slot exists. NULL is allowed.
        match unsafe { bindings::pci_probe_reset_slot(slot) } {
            0 => slot,
            _ => core::ptr::null_mut(),
        }
    }

    /// Returns the scope of a slot or bus reset of the function.
    pub(crate) fn reset_scope(&self) -> ResetScope {
        let Address { segment, bus, .. } = address(self.0);

        // SAFETY: The reference proves that the device is valid. The bit does not change.
        let is_virtfn = unsafe { bindings::pci_dev::is_virtfn_raw(as_raw(self.0)) } != 0;
        if is_virtfn {
            return ResetScope::Private(address(self.0));
        }

        let slot = self.resettable_slot();
        if !slot.is_null() {
            // SAFETY: The device is on its bus, so its slot exists.
            let number = unsafe { (*slot).number };
            return ResetScope::Slot {
                segment,
                bus,
                number: match u32::from(number) {
                    bindings::PCI_SLOT_ALL_DEVICES => 0,
                    _ => number,
                },
            };
        }

        match is_on_root_bus(self.0) {
            true => ResetScope::Private(address(self.0)),
            false => ResetScope::Bus { segment, bus },
        }
    }

    /// Returns whether there is a slot or bus reset. Some bridges and functions must not see one.
    pub(crate) fn can_reset_affected(&self) -> bool {
        // SAFETY: The reference proves that the device is valid. It holds a reference to its bus.
        let has_bus_reset = || unsafe { bindings::pci_probe_reset_bus((*as_raw(self.0)).bus) } == 0;

        !self.resettable_slot().is_null() || has_bus_reset()
    }

    /// Calls `visit` for every function that a slot or bus reset affects.
    ///
    /// That includes bridges, and the function itself. Stops at [`ControlFlow::Break`]. Holds
    /// `pci_bus_sem` for reading, so `visit` must neither walk again nor add or remove devices. May
    /// sleep.
    pub(crate) fn for_each_affected<F>(&self, visit: F)
    where
        F: FnMut(&Affected<'_>) -> ControlFlow<()>,
    {
        let pdev = as_raw(self.0);
        let mut walk = Walk {
            slot: self.resettable_slot(),
            visit,
        };

        // SAFETY: The bus lives as long as the device, and `walk` is what the callback expects.
        unsafe {
            bindings::pci_walk_bus(
                (*pdev).bus,
                Some(Walk::<F>::callback),
                (&raw mut walk).cast(),
            )
        };
    }
}

/// A function that a slot or bus reset affects.
pub(crate) struct Affected<'a>(&'a pci::Device);

impl Affected<'_> {
    pub(crate) fn address(&self) -> Address {
        address(self.0)
    }

    /// Returns whether the function has virtual functions.
    ///
    /// A reset of it affects them, and a walk does not visit those that are on another bus.
    pub(crate) fn has_virtual_functions(&self) -> bool {
        has_virtual_functions(self.0)
    }

    /// Returns the current driver of the function.
    ///
    /// Only tries to take the device lock, and only of a physical function that is bound to a
    /// driver of this module or to none.
    pub(crate) fn bound_to(&self) -> BoundTo {
        if is_bridge(self.0) {
            return BoundTo::Bridge;
        }
        let mut name = [0u8; BoundTo::MAX_NAME];

        // SAFETY: The reference proves that the device is valid. The buffer has this length.
        let ret = unsafe {
            bindings::vfio_rs_driver_name(as_raw(self.0), name.as_mut_ptr().cast(), name.len())
        };
        match ret {
            0 => BoundTo::Nothing,
            1.. => BoundTo::Driver(name),
            _ => BoundTo::Changing,
        }
    }
}

/// The state of a walk over affected functions.
struct Walk<F> {
    /// Unless NULL, visit only functions in this slot or below it.
    slot: *mut bindings::pci_slot,
    visit: F,
}

impl<F: FnMut(&Affected<'_>) -> ControlFlow<()>> Walk<F> {
    /// # Safety
    ///
    /// Called by `pci_walk_bus()`. `data` must point to a `Walk<F>` to which there is no other
    /// reference.
    unsafe extern "C" fn callback(
        pdev: *mut bindings::pci_dev,
        data: *mut kernel::ffi::c_void,
    ) -> kernel::ffi::c_int {
        // SAFETY: By the requirements of this function.
        let walk = unsafe { &mut *data.cast::<Self>() };

        // SAFETY: `pci_walk_bus()` passes valid devices and holds `pci_bus_sem`.
        if !walk.slot.is_null() && !unsafe { is_below_slot(pdev, walk.slot) } {
            return 0;
        }

        // SAFETY: `pci_walk_bus()` passes valid devices, and `pci::Device` is a transparent wrapper
        // of `struct pci_dev`.
        let affected = Affected(unsafe { &*pdev.cast() });
        match (walk.visit)(&affected) {
            ControlFlow::Continue(()) => 0,
            ControlFlow::Break(()) => 1,
        }
    }
}

/// Returns whether `pdev` is in `slot`, or below a bridge that is.
///
/// # Safety
///
/// Both must be valid, and `pci_bus_sem` must be held.
unsafe fn is_below_slot(mut pdev: *mut bindings::pci_dev, slot: *const bindings::pci_slot) -> bool {
    while !pdev.is_null() {
        // SAFETY: By the requirements of this function. A bridge outlives the bus below it.
        unsafe {
            if (*pdev).bus == (*slot).bus {
                return core::ptr::eq((*pdev).slot, slot);
            }
            pdev = (*(*pdev).bus).self_;
        }
    }

    false
}

/// Returns whether a message that user space can trigger may be logged now. All share one limit.
pub(crate) fn log_ratelimited() -> bool {
    // SAFETY: It can be called at any time.
    unsafe { bindings::vfio_rs_log_ratelimited() }
}
