// SPDX-License-Identifier: GPL-2.0

//! Owners of functions, by iommufd contexts or VFIO groups.
//!
//! C headers: [`include/linux/iommufd.h`](srctree/include/linux/iommufd.h),
//! [`include/linux/vfio.h`](srctree/include/linux/vfio.h)

use super::function::Function;
use crate::{
    bindings,
    reflck::Address, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
/// The identity of an iommufd context, which it can outlive.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct ContextId(usize);

impl ContextId {
    pub(super) fn new(context: *mut bindings::iommufd_ctx) -> Self {
        Self(context.addr())
    }
}

/// An iommufd context that a device is bound to.
///
/// # Invariants
///
/// The context exists for `'a`.
pub(crate) struct Context<'a>(NonNull<bindings::iommufd_ctx>, PhantomData<&'a ()>);

impl<'a> Context<'a> {
    /// Returns `None` if `context` is NULL.
    ///
    /// # Safety
    ///
    /// The context must exist for `'a`.
    pub(super) unsafe fn new(context: *mut bindings::iommufd_ctx) -> Option<Self> {
        // INVARIANT: By the requirements of this function.
        NonNull::new(context).map(|context| Self(context, PhantomData))
    }

    pub(crate) fn id(&self) -> ContextId {
        ContextId::new(self.0.as_ptr())
    }

    /// Returns whether a function in the IOMMU group of `function` is bound to the context.
    ///
    /// If so, no other user can have `function`.
    pub(crate) fn has_group_of(&self, function: &Function) -> bool {
        // SAFETY: By the type invariants, and `function` holds a reference to the device.
        unsafe { bindings::vfio_rs_iommufd_has_group(self.0.as_ptr(), function.as_raw()) }
    }
}

/// VFIO groups whose files a user has passed.
pub(crate) struct Groups<'a>(&'a bindings::vfio_pci_group_info);

impl Groups<'_> {
    fn contain(&self, function: &Function) -> bool {
        // SAFETY: The files are open, and the core device is initialised.
        unsafe { bindings::vfio_rs_groups_have_dev(self.0, function.core().as_raw()) }
    }
}

/// The owner that a user claims to be.
pub(crate) enum Owner<'a> {
    Groups(Groups<'a>),
    Context(Context<'a>),
}

impl<'a> Owner<'a> {
    /// Returns the owner of `groups` or, if that is NULL, of `context`. `None` if both are.
    ///
    /// # Safety
    ///
    /// They must exist for `'a`, and the files of the groups must be open.
    pub(super) unsafe fn new(
        groups: *const bindings::vfio_pci_group_info,
        context: *mut bindings::iommufd_ctx,
    ) -> Option<Self> {
        // SAFETY: By the requirements of this function.
        match unsafe { groups.as_ref() } {
            Some(groups) => Some(Self::Groups(Groups(groups))),
            // SAFETY: By the requirements of this function.
            None => unsafe { Context::new(context) }.map(Self::Context),
        }
    }

    /// Returns whether a function, bound to the context `bound_to` if any, belongs to the owner.
    pub(crate) fn owns(&self, function: &Function, bound_to: Option<ContextId>) -> bool {
        match (self, bound_to) {
            (Self::Groups(groups), _) => groups.contain(function),
            (Self::Context(context), Some(bound_to)) => context.id() == bound_to,
            (Self::Context(context), None) => context.has_group_of(function),
        }
    }
}

/// A function that a slot or bus reset affects, and its owner, as a user sees them.
///
/// A `struct vfio_pci_dependent_device`, without the union in it.
#[repr(C)]
pub(crate) struct Dependent {
    devid: u32,
    segment: u16,
    bus: u8,
    devfn: u8,
}

impl Dependent {
    /// Another user may own the function.
    // CAST: The ABI has -1 in an unsigned field.
    pub(crate) const NOT_OWNED: u32 = bindings::VFIO_PCI_DEVID_NOT_OWNED as u32;

    /// The function is not bound to the user's context. No other user can own it.
    pub(crate) const OWNED: u32 = bindings::VFIO_PCI_DEVID_OWNED;

    /// # Safety
    ///
    /// There must be `count` initialised `devices`, to which there is no other reference for `'a`.
    pub(super) unsafe fn slice<'a>(
        devices: *mut bindings::vfio_pci_dependent_device,
        count: usize,
    ) -> &'a mut [Self] {
        const {
            assert!(size_of::<Self>() == size_of::<bindings::vfio_pci_dependent_device>());
            assert!(
                offset_of!(Self, segment)
                    == offset_of!(bindings::vfio_pci_dependent_device, segment)
            );
        }

        // SAFETY: By the requirements of this function. The layout is the same.
        unsafe { core::slice::from_raw_parts_mut(devices.cast(), count) }
    }

    pub(crate) fn is_at(&self, address: Address) -> bool {
        let Address {
            segment,
            bus,
            devfn,
        } = address;

        // CAST: The ABI has 16 bits for the segment, which all dependents have in common.
        (self.segment, self.bus, self.devfn) == (segment as u16, bus, devfn)
    }

    /// `devid` is the ID in the context of the user, or one of the constants.
    pub(crate) fn set_devid(&mut self, devid: u32) {
        self.devid = devid;
    }
}
