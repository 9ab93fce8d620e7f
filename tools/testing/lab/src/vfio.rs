// SPDX-License-Identifier: GPL-2.0

//! Opening functions by a container and groups, or by their character devices and iommufd.
//!
//! A group can be open only once, and the functions of one slot often share a group. So one
//! [`User`] opens all functions of a group.

use std::sync::Arc;

use anyhow::{Context, Result};
use iommufd_ioctls::IommuFd;
use kvm_ioctls::DeviceFd;
use raw::{File, Mapping};
use vfio_bindings::bindings::vfio::VFIO_PCI_ERR_IRQ_INDEX;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioDeviceFd, VfioIommufd, VfioOps};
use vmm_sys_util::eventfd::EventFd;

use crate::sysfs::Bdf;
use crate::topology::Device;

/// A container with the groups of the functions that it opened, or an iommufd.
#[derive(Clone)]
pub struct User(Arc<dyn VfioOps>);

/// An open function. Dropping it is one `close(2)`.
#[derive(Debug)]
pub struct Opened {
    _file: File,
}

impl User {
    pub fn new() -> Result<Self> {
        let container = VfioContainer::new(None).context("opening a container")?;
        Ok(User(Arc::new(container)))
    }

    /// Opens a container whose groups a virtual machine of KVM learns by its VFIO device.
    pub fn with_machine(vfio: DeviceFd) -> Result<Self> {
        let container = VfioContainer::new(Some(Arc::new(VfioDeviceFd::new_from_kvm(vfio))))
            .context("opening a container for a virtual machine")?;
        Ok(User(Arc::new(container)))
    }

    pub fn with_iommufd() -> Result<Self> {
        let iommufd = IommuFd::new().context("opening /dev/iommu")?;
        let user = VfioIommufd::new(Arc::new(iommufd), None, None).context("allocating an IOAS")?;
        Ok(User(Arc::new(user)))
    }

    /// Opens `function`, and its group if that is not open.
    pub fn open(&self, function: &Bdf) -> Result<Opened> {
        Opened::of(&self.device(function)?)
    }

    pub fn open_all(&self, functions: &[Device]) -> Result<Vec<Opened>> {
        functions.iter().map(|function| self.open(function)).collect()
    }

    /// Opens `function`, and signals `event` whenever PCI Express reports an error of it.
    pub fn open_with_error_event(&self, function: &Bdf, event: &EventFd) -> Result<Opened> {
        let device = self.device(function)?;
        device
            .enable_irq(VFIO_PCI_ERR_IRQ_INDEX, vec![event])
            .with_context(|| format!("setting the error event of {function}"))?;
        Opened::of(&device)
    }

    /// Lets the devices access `memory` at `iova`.
    pub fn map(&self, memory: &Mapping, iova: u64) -> Result<()> {
        memory.map(&*self.0, iova).context("mapping memory")
    }

    /// Opens `function` for calls to it. Only devices of an iommufd may be dropped in parallel.
    pub fn device(&self, function: &Bdf) -> Result<VfioDevice> {
        VfioDevice::new(&function.path(), self.0.clone())
            .with_context(|| format!("opening {function}"))
    }
}

impl Opened {
    /// A dropped `VfioDevice` closes its group if it believes to be the last user. Two threads
    /// that do so race, and one fails with EBUSY. With this reference to the open file, the device
    /// can be dropped at once, while the kernel keeps the group in the container.
    fn of(device: &VfioDevice) -> Result<Self> {
        let file = File::of_device(device).context("duplicating a device's file")?;
        Ok(Opened { _file: file })
    }
}
