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
    ptr::NonNull, //
};
use kernel::{
    fs::file::LocalFile,
    prelude::*,
    sync::aref::ARef, //
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

/// VFIO groups whose files the caller has open.
pub(crate) struct Groups(KVec<ARef<LocalFile>>);

impl Groups {
    pub(super) fn with_capacity(capacity: usize) -> Result<Self> {
        Ok(Self(KVec::with_capacity(capacity, GFP_KERNEL)?))
    }

    /// Adds the group of a file. Fails with [`EBADF`] if the descriptor is not open, [`EINVAL`] if
    /// it is not a VFIO group.
    pub(super) fn add(&mut self, fd: u32) -> Result {
        let file = LocalFile::fget(fd)?;

        // SAFETY: The file is open.
        if !unsafe { bindings::vfio_rs_file_is_group(file.as_ptr()) } {
            return Err(EINVAL);
        }

        Ok(self.0.push(file, GFP_KERNEL)?)
    }

    fn contain(&self, function: &Function) -> bool {
        self.0.iter().any(|file| {
            // SAFETY: The file is open, and the core device is initialised.
            unsafe { bindings::vfio_rs_file_has_dev(file.as_ptr(), function.core().as_raw()) }
        })
    }
}

/// The owner that a user claims to be.
pub(crate) enum Owner<'a> {
    Groups(Groups),
    Context(Context<'a>),
}

impl Owner<'_> {
    /// Returns whether a function, bound to the context `bound_to` if any, belongs to the owner.
    pub(crate) fn owns(&self, function: &Function, bound_to: Option<ContextId>) -> bool {
        match (self, bound_to) {
            (Self::Groups(groups), _) => groups.contain(function),
            (Self::Context(context), Some(bound_to)) => context.id() == bound_to,
            (Self::Context(context), None) => context.has_group_of(function),
        }
    }
}

/// A function that a slot or bus reset affects, and its owner.
pub(crate) struct Dependent {
    pub(super) address: Address,
    /// The ID of its IOMMU group, or its device ID for a user of iommufd.
    pub(super) id: u32,
}

impl Dependent {
    /// Another user may own the function.
    // CAST: The ABI has -1 in an unsigned field.
    pub(crate) const NOT_OWNED: u32 = bindings::VFIO_PCI_DEVID_NOT_OWNED as u32;

    /// The function is not bound to the user's context. No other user can own it.
    pub(crate) const OWNED: u32 = bindings::VFIO_PCI_DEVID_OWNED;

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// `devid` is the ID in the context of the user, or one of the constants.
    pub(crate) fn set_devid(&mut self, devid: u32) {
        self.id = devid;
    }
}
