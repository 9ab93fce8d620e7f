// SPDX-License-Identifier: GPL-2.0

//! The ioctls `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO` and `VFIO_DEVICE_PCI_HOT_RESET`.
//!
//! Reads and writes their arguments, with the sizes, flags and errors of vfio-pci-core. The driver
//! knows which functions the caller owns, and resets them.
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)

use super::{
    device::OpenDevice,
    function::{
        Affected,
        BoundFunction, //
    },
    owner::{
        Dependent,
        Groups,
        Owner, //
    },
    Driver, //
};
use crate::{
    bindings,
    reflck::Address, //
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// Size of the header of both arguments: their size, flags and a count.
const SIZE_OF_HEADER: usize = 12;

const SIZE_OF_DEPENDENT: usize = 8;

const _: () = {
    assert!(size_of::<bindings::vfio_pci_dependent_device>() == SIZE_OF_DEPENDENT);
    assert!(size_of::<bindings::vfio_pci_hot_reset_info>() == SIZE_OF_HEADER);
    assert!(size_of::<bindings::vfio_pci_hot_reset>() == SIZE_OF_HEADER);
};

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

/// Returns the array that follows the header.
fn array(arg: UserPtr) -> UserPtr {
    arg.wrapping_byte_add(SIZE_OF_HEADER)
}

/// Returns a `struct vfio_pci_dependent_device`.
fn to_bytes(dependent: &Dependent) -> [u8; SIZE_OF_DEPENDENT] {
    let Address {
        segment,
        bus,
        devfn,
    } = dependent.address();
    // CAST: The ABI has 16 bits for it.
    let segment = (segment as u16).to_ne_bytes();
    let id = dependent.id.to_ne_bytes();

    [
        id[0], id[1], id[2], id[3], segment[0], segment[1], bus, devfn,
    ]
}

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: lists the functions that a reset affects, with their
/// owners.
///
/// Fails with [`ENODEV`] if there is no such reset, [`ENOSPC`] and the number of functions if they
/// do not fit, [`EPERM`] if a function has no IOMMU group, [`EAGAIN`] if one appeared meanwhile.
pub(super) fn ioctl_info<T: Driver>(device: &OpenDevice<'_, T>, arg: UserPtr) -> Result {
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
        T::hot_reset_info(device, &context, &mut dependents)?;
        flags = bindings::VFIO_PCI_HOT_RESET_FLAG_DEV_ID;
        if dependents.iter().all(|d| d.id != Dependent::NOT_OWNED) {
            flags |= bindings::VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
        }
    }

    let mut writer = UserSlice::new(array(arg), dependents.len() * SIZE_OF_DEPENDENT).writer();
    for dependent in &dependents {
        writer.write_slice(&to_bytes(dependent))?;
    }

    // CAST: There are fewer functions.
    write_header(arg, [argsz, flags, dependents.len() as u32])
}

/// Lists at most `count` affected functions. A user of iommufd owns none of them so far.
fn dependents(
    function: &BoundFunction<'_>,
    count: usize,
    iommufd: bool,
) -> Result<KVec<Dependent>> {
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

/// `VFIO_DEVICE_PCI_HOT_RESET`: resets the slot or bus, if the caller owns all of it.
///
/// Fails with [`ENODEV`] if there is no such reset, [`EBADF`] if a descriptor is not open,
/// [`EINVAL`] if it is not a VFIO group, or the error of [`Driver::hot_reset`].
pub(super) fn ioctl_reset<T: Driver>(device: &OpenDevice<'_, T>, arg: UserPtr) -> Result {
    let [_, flags, count] = read_header(arg)?;
    let function = device.function();

    // Cdev users pass no groups; ownership follows from the iommufd context.
    if flags != 0 || (count == 0) != device.is_cdev() {
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

/// Reads `count` group files, at most one for each function.
fn groups(function: &BoundFunction<'_>, fds: UserPtr, count: u32) -> Result<Groups> {
    // CAST: A `u32` fits.
    let count = count as usize;

    if count > function.count_affected() {
        return Err(EINVAL);
    }

    let mut groups = Groups::with_capacity(count)?;
    let mut numbers = KVec::with_capacity(count * size_of::<u32>(), GFP_KERNEL)?;
    UserSlice::new(fds, count * size_of::<u32>()).read_all(&mut numbers, GFP_KERNEL)?;
    for number in numbers.chunks_exact(size_of::<u32>()) {
        groups.add(u32::from_ne_bytes([
            number[0], number[1], number[2], number[3],
        ]))?;
    }

    Ok(groups)
}
