// SPDX-License-Identifier: GPL-2.0

//! A PCI function, as far as resets and their side effects are concerned.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use super::device::CoreDevice;
use crate::{
    bindings,
    reflck::{
        Address,
        Owned,
        ResetScope, //
    }, //
};
use core::ops::ControlFlow;
use kernel::{
    device,
    error::to_result,
    fmt,
    pci,
    prelude::*,
    types::NotThreadSafe, //
};

/// Returns the C device behind `pdev`.
pub(super) fn as_raw<Ctx: device::DeviceContext>(
    pdev: &pci::Device<Ctx>,
) -> *mut bindings::pci_dev {
    // `pci::Device` is a transparent wrapper of `struct pci_dev`.
    core::ptr::from_ref(pdev).cast_mut().cast()
}

/// A PCI function that vfio-pci-core has a device of.
pub(crate) struct Function(CoreDevice);

impl Function {
    /// Returns the function that `core` is the device of.
    pub(crate) fn new(core: CoreDevice) -> Self {
        Self(core)
    }

    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        as_raw(self.0.pdev())
    }

    pub(super) fn core(&self) -> &CoreDevice {
        &self.0
    }

    /// Returns the generic device, for log messages.
    pub(crate) fn dev(&self) -> &device::Device {
        self.0.pdev().as_ref()
    }

    /// Returns the address of the function.
    pub(crate) fn address(&self) -> Address {
        // SAFETY: `self` holds a reference to the device.
        unsafe { address(self.as_raw()) }
    }

    /// Returns whether the function has a header of type 1 or 2, that is, whether it is a bridge.
    pub(crate) fn is_bridge(&self) -> bool {
        // SAFETY: `self` holds a reference to the device; `hdr_type` is set when the device is
        // found and not changed after that.
        let hdr_type = unsafe { (*self.as_raw()).hdr_type };

        u32::from(hdr_type) != bindings::PCI_HEADER_TYPE_NORMAL
    }

    /// Returns whether the function has virtual functions.
    pub(crate) fn has_virtual_functions(&self) -> bool {
        // SAFETY: `self` holds a reference to the device.
        unsafe { bindings::vfio_rs_pci_num_vf(self.as_raw()) > 0 }
    }

    /// Returns whether the function and `other` are in the same IOMMU group, and in any.
    pub(crate) fn shares_iommu_group(&self, other: &Self) -> bool {
        let id = |function: &Self| {
            // SAFETY: `function` holds a reference to the device.
            unsafe { bindings::vfio_rs_iommu_group_id(function.as_raw()) }
        };
        let id_of_this = id(self);

        id_of_this >= 0 && id(other) == id_of_this
    }

    /// Returns which functions a slot or bus reset of this one would affect.
    ///
    /// Call it from probe, remove, or while the function is bound to the caller's driver: the
    /// function stays on its bus then.
    ///
    /// Nothing keeps the slot if root unbinds its hotplug driver at this moment, nor its other
    /// functions if they are unplugged: this and [`Function::can_reset_affected`] look at them as
    /// vfio_pci_core.c does.
    pub(crate) fn reset_scope(&self) -> ResetScope {
        let Address { segment, bus, .. } = self.address();
        let pdev = self.as_raw();

        // SAFETY: `self` holds a reference to the device. The bit is set when the device is found
        // and not changed after that.
        let is_virtfn = unsafe { bindings::pci_dev::is_virtfn_raw(pdev) } != 0;
        if is_virtfn {
            return ResetScope::Private(self.address());
        }

        // SAFETY: `self` holds a reference to the device.
        let slot = unsafe { (*pdev).slot };
        // SAFETY: `pci_probe_reset_slot()` takes any slot of a device, and NULL. For what else it
        // looks at, see above.
        if unsafe { bindings::pci_probe_reset_slot(slot) } == 0 {
            // SAFETY: NULL would have given an error.
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

        if self.is_on_root_bus() {
            return ResetScope::Private(self.address());
        }

        ResetScope::Bus { segment, bus }
    }

    /// Returns whether there is no bridge above the function.
    fn is_on_root_bus(&self) -> bool {
        // SAFETY: `self` holds a reference to the device, which holds one to its bus.
        unsafe { bindings::vfio_rs_pci_is_root_bus(self.as_raw()) }
    }

    /// Returns whether [`Function::reset_affected`] can reset anything at all: some bridges and
    /// functions must not see a bus reset.
    pub(crate) fn can_reset_affected(&self) -> bool {
        let pdev = self.as_raw();

        // SAFETY: `self` holds a reference to the device, which holds one to its bus. Both
        // functions only look whether the reset is there. For what they look at, see
        // `reset_scope()`.
        unsafe {
            bindings::pci_probe_reset_slot((*pdev).slot) == 0
                || bindings::pci_probe_reset_bus((*pdev).bus) == 0
        }
    }

    /// Calls `visit` for every function that a slot or bus reset of this one affects, itself and
    /// bridges included, until it returns [`ControlFlow::Break`].
    ///
    /// Takes `pci_bus_sem` for reading around the calls, so `visit` must neither call this function
    /// nor add or remove devices. May sleep.
    pub(crate) fn for_each_affected<F>(&self, visit: F)
    where
        F: FnMut(&Affected<'_>) -> ControlFlow<()>,
    {
        let pdev = self.as_raw();
        // SAFETY: As in `reset_scope()`.
        let slot = unsafe { (*pdev).slot };
        // SAFETY: As in `reset_scope()`.
        let by_slot = unsafe { bindings::pci_probe_reset_slot(slot) } == 0;

        let mut walk = Walk {
            slot: if by_slot { slot } else { core::ptr::null_mut() },
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

    /// Returns how many functions [`Function::for_each_affected`] visits.
    pub(crate) fn count_affected(&self) -> usize {
        let mut affected = 0;

        self.for_each_affected(|_| {
            affected += 1;
            ControlFlow::Continue(())
        });

        affected
    }

    /// Resets every function that [`Function::for_each_affected`] visits, by their slot if its
    /// hotplug driver can do that, else by their bus. Saves and restores their config spaces.
    ///
    /// Only tries to take the lock of the bridge and the device lock of every function, and gives
    /// [`EAGAIN`] if one of them is held elsewhere. May sleep, about a second.
    pub(crate) fn reset_affected(&self) -> Result {
        // SAFETY: `self` holds a reference to the device.
        to_result(unsafe { bindings::pci_reset_bus(self.as_raw()) })
    }

    /// Resets this function alone, with the first method that it has. Saves and restores its
    /// config space.
    ///
    /// Only tries to take the device lock, and gives [`EAGAIN`] if it is held elsewhere. Does not
    /// take the lock of the bridge: the caller knows that [`Function::reset_uses_bridge`] is not
    /// so, or that nothing else is below the bridge. May sleep, about 100 ms.
    pub(crate) fn try_reset(&self) -> Result {
        // SAFETY: `self` holds a reference to the device.
        to_result(unsafe { bindings::pci_try_reset_function(self.as_raw()) })
    }

    /// Returns whether the function answers to an access to its config space. It does not after it
    /// was unplugged, or as long as it has not come back from a reset.
    pub(crate) fn is_present(&self) -> bool {
        // SAFETY: `self` holds a reference to the device.
        unsafe { bindings::pci_device_is_present(self.as_raw()) }
    }

    /// Returns whether the first method by which [`Function::try_reset`] would reset the function
    /// goes through the bridge above it.
    pub(crate) fn reset_uses_bridge(&self) -> bool {
        /// Index of the first such method, `bus`, in `pci_reset_fn_methods` in
        /// `drivers/pci/pci.c`. It is followed by `cxl_bus`, which does so too.
        const FIRST: u8 = 6;

        // SAFETY: `self` holds a reference to the device. The methods are single bytes, which can
        // be changed by root at any time.
        let first = unsafe { (&raw const (*self.as_raw()).reset_methods[0]).read_volatile() };

        first >= FIRST && !self.is_on_root_bus()
    }

    /// Resets a function that is bound or unbound at this moment, as [`Function::try_reset`] does.
    ///
    /// The context of `pdev` says that its device lock is held. May sleep, about 100 ms.
    pub(crate) fn reset_locked(pdev: &pci::Device<device::Core<'_>>) -> Result {
        // SAFETY: The device lock is held.
        to_result(unsafe { bindings::pci_reset_function_locked(as_raw(pdev)) })
    }
}

/// Keeps functions in D0. When it is dropped, runtime PM may put them into D3hot again.
///
/// Allocates nothing: a release must not fail for want of memory.
///
/// # Invariants
///
/// Owns one count of the runtime PM usage counter of each of the first `resumed` of `functions`.
pub(crate) struct Resumed<'a, I: Iterator<Item = &'a Function> + Clone> {
    functions: I,
    resumed: usize,
}

impl<'a, I: Iterator<Item = &'a Function> + Clone> Resumed<'a, I> {
    /// Brings `functions` to D0, all or, if there is an error, none. The iterator gives the same
    /// functions each time that a clone of it runs.
    ///
    /// May sleep.
    pub(crate) fn new(functions: I) -> Result<Self> {
        // INVARIANT: Of no function yet.
        let mut this = Self {
            functions,
            resumed: 0,
        };

        for function in this.functions.clone() {
            // SAFETY: `function` holds a reference to the device.
            to_result(unsafe { bindings::vfio_rs_pm_runtime_resume_and_get(function.as_raw()) })?;
            // INVARIANT: It has just been taken.
            this.resumed += 1;
        }

        Ok(this)
    }
}

impl<'a, I: Iterator<Item = &'a Function> + Clone> Drop for Resumed<'a, I> {
    fn drop(&mut self) {
        for function in self.functions.clone().take(self.resumed) {
            // By the type invariants, a count of its usage counter is ours to put.
            //
            // SAFETY: `function` holds a reference to the device.
            unsafe { bindings::vfio_rs_pm_runtime_put(function.as_raw()) };
        }
    }
}

/// Keeps users away from all functions of a reset domain: none has a BAR mapped, and whoever
/// accesses one waits. When it is dropped, users are let in again, to the last function first.
pub(crate) struct Fences<'a>(KVec<Fence<'a>>);

impl<'a> Fences<'a> {
    /// Keeps users away from the functions that `owned` is the proof for: all of them or, if there
    /// is an error, none.
    ///
    /// Takes the `memory_lock` of each, which it only tries to, and gives [`EBUSY`] if one is held
    /// elsewhere. Keeps the locks. May sleep.
    pub(crate) fn new(owned: &'a Owned<'_, Function>) -> Result<Self> {
        let mut this = Self(KVec::with_capacity(owned.len(), GFP_KERNEL)?);

        for function in owned.iter() {
            // SAFETY: The core device is initialised.
            to_result(unsafe { bindings::vfio_pci_core_fence(function.0.as_ptr()) })?;
            // INVARIANT: That has just succeeded, and the borrow of `owned` keeps the function from
            // being opened or closed.
            let fence = Fence(function, NotThreadSafe);
            this.0.push(fence, GFP_KERNEL)?;
        }

        Ok(this)
    }

    /// Brings the functions to D0 that their user has put into another power state.
    pub(crate) fn set_d0(&self) {
        for Fence(function, _) in &self.0 {
            // SAFETY: The core device is initialised, and `memory_lock` is held.
            unsafe { bindings::vfio_pci_core_fenced_set_d0(function.0.as_ptr()) };
        }
    }
}

impl Drop for Fences<'_> {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// Keeps users away from one function.
///
/// # Invariants
///
/// `vfio_pci_core_fence()` has succeeded for the function in this thread, and it is neither being
/// opened nor closed.
struct Fence<'a>(&'a Function, NotThreadSafe);

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::vfio_pci_core_unfence(self.0 .0.as_ptr()) };
    }
}

/// A function that [`Function::for_each_affected`] visits.
pub(crate) struct Affected<'a>(&'a pci::Device);

impl Affected<'_> {
    /// Returns the address of the function.
    pub(crate) fn address(&self) -> Address {
        // SAFETY: The reference proves that the device is valid.
        unsafe { address(as_raw(self.0)) }
    }

    /// Returns the ID of the function's IOMMU group, if it has one.
    pub(crate) fn iommu_group_id(&self) -> Option<u32> {
        // SAFETY: The reference proves that the device is valid.
        let id = unsafe { bindings::vfio_rs_iommu_group_id(as_raw(self.0)) };

        u32::try_from(id).ok()
    }

    /// Returns whether the function has virtual functions. Those that are not on its own bus are
    /// affected by a reset of it, but [`Function::for_each_affected`] does not visit them.
    pub(crate) fn has_virtual_functions(&self) -> bool {
        // SAFETY: The reference proves that the device is valid.
        unsafe { bindings::vfio_rs_pci_num_vf(as_raw(self.0)) > 0 }
    }

    /// Returns what the function is bound to at this moment.
    ///
    /// Only tries to take the device lock, and not that of a virtual function, nor of one which is
    /// bound to another driver.
    pub(crate) fn bound_to(&self) -> BoundTo {
        let mut name = [0u8; BoundTo::MAX_NAME];

        // SAFETY: The reference proves that the device is valid; the buffer has the length given.
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

/// What a function is bound to.
pub(crate) enum BoundTo {
    /// No driver.
    Nothing,
    /// The driver of this name, NUL-terminated.
    Driver([u8; BoundTo::MAX_NAME]),
    /// Its device lock is held elsewhere, as it is while it is bound or unbound.
    Changing,
}

impl BoundTo {
    /// Longest name of a driver that is told in full, with its terminator.
    const MAX_NAME: usize = 32;
}

impl fmt::Display for BoundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("is not bound to a driver"),
            Self::Driver(name) => {
                let name = CStr::from_bytes_until_nul(name).map_err(|_| fmt::Error)?;
                f.write_fmt(fmt!("is bound to {name}"))
            }
            Self::Changing => f.write_str("is being bound, unbound or reset"),
        }
    }
}

/// State of a walk over affected functions.
struct Walk<F> {
    /// Visit only functions in this slot, or below it, unless it is NULL.
    slot: *mut bindings::pci_slot,
    visit: F,
}

impl<F: FnMut(&Affected<'_>) -> ControlFlow<()>> Walk<F> {
    /// # Safety
    ///
    /// `data` must point to a `Walk<F>` to which there is no other reference.
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
        let affected = Affected(unsafe { &*pdev.cast::<pci::Device>() });

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
        // SAFETY: By the requirements of this function; a bridge outlives the bus below it.
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

/// Returns the address of a device.
///
/// # Safety
///
/// `pdev` must be valid.
unsafe fn address(pdev: *mut bindings::pci_dev) -> Address {
    // SAFETY: By the requirements of this function.
    let segment = unsafe { bindings::vfio_rs_pci_domain_nr(pdev) };
    // SAFETY: By the requirements of this function; a device holds a reference to its bus.
    let (bus, devfn) = unsafe { ((*(*pdev).bus).number, (*pdev).devfn) };

    Address {
        // CAST: Segment numbers are not negative.
        segment: segment as u32,
        bus,
        // CAST: `devfn` holds eight bits.
        devfn: devfn as u8,
    }
}
