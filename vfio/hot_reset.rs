// SPDX-License-Identifier: GPL-2.0

//! The ioctls of hot reset, `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO` and `VFIO_DEVICE_PCI_HOT_RESET`,
//! as far as user space sees them: their arguments, and in whose name they are called.
//!
//! Who owns which function, and the reset itself, are the driver's business. Sizes, flags and
//! errors are those of vfio-pci-core.
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)

use super::{
    device::OpenDevice,
    function::{
        Affected,
        Function, //
    },
    Driver, //
};
use crate::{
    bindings,
    reflck::Address, //
};
use core::{
    marker::PhantomData,
    ops::ControlFlow,
    ptr::NonNull, //
};
use kernel::{
    fs::file::LocalFile,
    prelude::*,
    sync::aref::ARef,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// Which iommufd context, to tell one from another. It can outlive the context.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct ContextId(usize);

impl ContextId {
    pub(super) fn new(context: *mut bindings::iommufd_ctx) -> Self {
        Self(context.addr())
    }
}

/// An iommufd context that a device is bound to for `'a`.
///
/// # Invariants
///
/// The context is there for `'a`.
pub(crate) struct Context<'a>(NonNull<bindings::iommufd_ctx>, PhantomData<&'a ()>);

impl Context<'_> {
    /// Returns which context this is.
    pub(crate) fn id(&self) -> ContextId {
        ContextId::new(self.0.as_ptr())
    }

    /// Returns whether a function of the IOMMU group of `function` is bound to the context: then
    /// nobody else can have `function`.
    pub(crate) fn has_group_of(&self, function: &Function) -> bool {
        // SAFETY: The context is there by the type invariants, the device by those of `Function`.
        unsafe { bindings::vfio_rs_iommufd_has_group(self.0.as_ptr(), function.as_raw()) }
    }
}

/// VFIO groups, by files that their user holds open.
pub(crate) struct Groups(KVec<ARef<LocalFile>>);

impl Groups {
    /// Returns whether the device of `function` is in one of the groups.
    pub(crate) fn contain(&self, function: &Function) -> bool {
        self.0.iter().any(|file| {
            // SAFETY: The file is open, and the device is there by the invariants of `Function`.
            unsafe { bindings::vfio_rs_file_has_dev(file.as_ptr(), function.core().as_ptr()) }
        })
    }
}

/// What proves that functions are somebody's.
pub(crate) enum Owner<'a> {
    /// They are in these groups.
    Groups(Groups),
    /// They are bound to this context, or their group is.
    Context(Context<'a>),
}

/// A function that a slot or bus reset would affect, as user space is told of it.
pub(crate) struct Dependent {
    address: Address,
    /// A group's ID, or what somebody who uses iommufd has of the function.
    id: u32,
}

impl Dependent {
    /// Somebody else may have the function.
    // CAST: The ABI has -1 in a field without a sign.
    pub(crate) const NOT_OWNED: u32 = bindings::VFIO_PCI_DEVID_NOT_OWNED as u32;

    /// The function is not bound to the user's context, but nobody else can have it.
    pub(crate) const OWNED: u32 = bindings::VFIO_PCI_DEVID_OWNED;

    /// Returns the address of the function.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Says what the user has of the function: its ID in the context, or one of the constants.
    pub(crate) fn set_devid(&mut self, devid: u32) {
        self.id = devid;
    }

    /// Returns the `struct vfio_pci_dependent_device`.
    fn to_bytes(&self) -> [u8; SIZE_OF_DEPENDENT] {
        let Address {
            segment,
            bus,
            devfn,
        } = self.address;
        // CAST: The ABI has 16 bits for it.
        let segment = (segment as u16).to_ne_bytes();
        let id = self.id.to_ne_bytes();

        [
            id[0], id[1], id[2], id[3], segment[0], segment[1], bus, devfn,
        ]
    }
}

const SIZE_OF_DEPENDENT: usize = 8;
/// Size of what both ioctls begin with: the size of the argument, flags and a count.
const SIZE_OF_HEADER: usize = 12;

const _: () = {
    assert!(size_of::<bindings::vfio_pci_dependent_device>() == SIZE_OF_DEPENDENT);
    assert!(size_of::<bindings::vfio_pci_hot_reset_info>() == SIZE_OF_HEADER);
    assert!(size_of::<bindings::vfio_pci_hot_reset>() == SIZE_OF_HEADER);
};

/// Reads what both ioctls begin with: the size of the argument, flags, and a count.
fn read_header(arg: UserPtr) -> Result<[u32; 3]> {
    let header: [u32; 3] = UserSlice::new(arg, SIZE_OF_HEADER).reader().read()?;

    // CAST: A `u32` fits.
    if (header[0] as usize) < SIZE_OF_HEADER {
        return Err(EINVAL);
    }

    Ok(header)
}

fn write_header(arg: UserPtr, header: [u32; 3]) -> Result {
    UserSlice::new(arg, SIZE_OF_HEADER).writer().write(&header)
}

/// Returns where the array of either ioctl is.
fn array(arg: UserPtr) -> UserPtr {
    arg.wrapping_byte_add(SIZE_OF_HEADER)
}

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: tells which functions a slot or bus reset would affect,
/// and whose they are.
///
/// Gives [`ENODEV`] if there is no such reset, [`ENOSPC`] and the number of functions if there is
/// no place for all of them, [`EPERM`] if one is not isolated by an IOMMU, and [`EAGAIN`] if one
/// has appeared meanwhile.
pub(super) fn info<T: Driver>(device: &OpenDevice<'_, T>, arg: UserPtr) -> Result {
    let [argsz, ..] = read_header(arg)?;
    let function = device.function();

    if !function.can_reset_affected() {
        return Err(ENODEV);
    }
    let count = function.count_affected();
    // CAST: A `u32` fits.
    if count > (argsz as usize - SIZE_OF_HEADER) / SIZE_OF_DEPENDENT {
        // CAST: There are fewer functions.
        write_header(arg, [argsz, 0, count as u32])?;
        return Err(ENOSPC);
    }

    let context = device.cdev_context();
    let mut dependents = dependents(&function, count, context.is_some())?;
    let mut flags = 0;
    if let Some(context) = context {
        T::hot_reset_info(device, &context, &mut dependents);
        flags = bindings::VFIO_PCI_HOT_RESET_FLAG_DEV_ID;
        if dependents.iter().all(|d| d.id != Dependent::NOT_OWNED) {
            flags |= bindings::VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
        }
    }

    let mut writer = UserSlice::new(array(arg), dependents.len() * SIZE_OF_DEPENDENT).writer();
    for dependent in &dependents {
        writer.write_slice(&dependent.to_bytes())?;
    }

    // CAST: There are fewer functions.
    write_header(arg, [argsz, flags, dependents.len() as u32])
}

/// Lists the functions that a slot or bus reset of `function` affects, `count` at most: with their
/// groups, or, for a user of iommufd, as not owned.
fn dependents(function: &Function, count: usize, iommufd: bool) -> Result<KVec<Dependent>> {
    let mut list = KVec::with_capacity(count, GFP_KERNEL)?;

    let mut result = Ok(());
    function.for_each_affected(|affected| {
        result = add_dependent(&mut list, affected, iommufd);
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    result?;

    Ok(list)
}

/// Adds a function to `list`, where there was room for all that were there.
fn add_dependent(list: &mut KVec<Dependent>, affected: &Affected<'_>, iommufd: bool) -> Result {
    let id = if iommufd {
        Dependent::NOT_OWNED
    } else {
        affected.iommu_group_id().ok_or(EPERM)?
    };
    let address = affected.address();

    list.push_within_capacity(Dependent { address, id })
        .map_err(|_| EAGAIN)
}

/// `VFIO_DEVICE_PCI_HOT_RESET`: resets the slot or bus, if all of it is the caller's.
///
/// Gives [`ENODEV`] if there is no such reset, [`EBADF`] or [`EINVAL`] for what is no file or no
/// group, and the errors of [`Driver::hot_reset`].
pub(super) fn reset<T: Driver>(device: &OpenDevice<'_, T>, arg: UserPtr) -> Result {
    let [_, flags, count] = read_header(arg)?;
    let is_cdev = device.is_cdev();
    let function = device.function();

    // No groups are given by who has no group: the functions are known by what they are bound to.
    if flags != 0 || (count == 0) != is_cdev {
        return Err(EINVAL);
    }
    if !function.can_reset_affected() {
        return Err(ENODEV);
    }

    let owner = match device.cdev_context() {
        Some(context) => Owner::Context(context),
        None => Owner::Groups(groups(&function, array(arg), count)?),
    };

    T::hot_reset(device, &owner)
}

/// Reads `count` group files. There cannot be more groups than functions.
fn groups(function: &Function, fds: UserPtr, count: u32) -> Result<Groups> {
    // CAST: A `u32` fits.
    let count = count as usize;

    if count > function.count_affected() {
        return Err(EINVAL);
    }

    let mut files = KVec::with_capacity(count, GFP_KERNEL)?;
    let mut numbers = KVec::with_capacity(count * size_of::<u32>(), GFP_KERNEL)?;
    UserSlice::new(fds, count * size_of::<u32>()).read_all(&mut numbers, GFP_KERNEL)?;
    for number in numbers.chunks_exact(size_of::<u32>()) {
        let fd = u32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
        let file = LocalFile::fget(fd)?;

        // SAFETY: The file is open.
        if !unsafe { bindings::vfio_rs_file_is_group(file.as_ptr()) } {
            return Err(EINVAL);
        }
        files.push(file, GFP_KERNEL)?;
    }

    Ok(Groups(files))
}

impl<'a, T: Driver> OpenDevice<'a, T> {
    /// Returns whether the device was opened through its character device.
    fn is_cdev(&self) -> bool {
        // SAFETY: The device is there. Nobody changes this while it is open.
        unsafe { bindings::vfio_rs_is_cdev_opened(self.core()) }
    }

    /// Returns the context that the device is bound to, if it was opened through its character
    /// device.
    fn cdev_context(&self) -> Option<Context<'a>> {
        if !self.is_cdev() {
            return None;
        }

        // INVARIANT: The device has a reference to the context until it is closed.
        // SAFETY: The device is there, and open.
        NonNull::new(unsafe { bindings::vfio_rs_iommufd_ctx(self.core()) })
            .map(|context| Context(context, PhantomData))
    }
}
