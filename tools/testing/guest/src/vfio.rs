// SPDX-License-Identifier: GPL-2.0

//! Opening functions: through VFIO's container and groups, or through their character devices and
//! iommufd.
//!
//! A group can be open only once at a time, and the functions of one slot often share a group, so
//! all functions of a group that a test opens together are opened through one [`User`].

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use iommufd_ioctls::IommuFd;
use kvm_ioctls::DeviceFd;
use nix::fcntl::fcntl;
use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use vfio_bindings::bindings::vfio::VFIO_PCI_ERR_IRQ_INDEX;
use vfio_ioctls::VfioContainer;
use vfio_ioctls::VfioDevice;
use vfio_ioctls::VfioDeviceFd;
use vfio_ioctls::VfioIommufd;
use vfio_ioctls::VfioOps;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::error::Doing;
use crate::sysfs::Bdf;
use crate::Error;
use crate::Result;

/// A user of VFIO: a container, and the groups of the functions that it opens, which it keeps
/// until it is dropped; or an iommufd.
#[derive(Clone)]
pub struct User(Arc<dyn VfioOps>);

/// An open function. Dropping it is one `close(2)`, and the function's release if it was not
/// opened more often.
#[derive(Debug)]
pub struct Opened {
    // Held for being open.
    _file: File,
}

impl User {
    /// Opens a container.
    pub fn new() -> Result<Self> {
        let container =
            VfioContainer::new(None).map_err(|e| refused("opening a VFIO container", e))?;
        Ok(User(Arc::new(container)))
    }

    /// Opens a container that tells a virtual machine which groups it has, through the machine's
    /// VFIO device.
    pub fn with_machine(vfio: DeviceFd) -> Result<Self> {
        let container = VfioContainer::new(Some(Arc::new(VfioDeviceFd::new_from_kvm(vfio))))
            .map_err(|e| refused("opening a VFIO container for a virtual machine", e))?;
        Ok(User(Arc::new(container)))
    }

    /// Opens an iommufd: functions are opened through their character devices.
    pub fn with_iommufd() -> Result<Self> {
        let iommufd = IommuFd::new().map_err(|e| refused("opening /dev/iommu", e))?;
        let user = VfioIommufd::new(Arc::new(iommufd), None, None)
            .map_err(|e| refused("allocating an IOAS", e))?;
        Ok(User(Arc::new(user)))
    }

    /// Opens `function`; of a container also its group, if this is the first function of it.
    pub fn open(&self, function: &Bdf) -> Result<Opened> {
        self.open_and(function, |_| Ok(()))
    }

    /// Opens `function`, and has `event` signalled whenever PCI Express reports an error of it.
    pub fn open_with_error_event(&self, function: &Bdf, event: &EventFd) -> Result<Opened> {
        self.open_and(function, |device| {
            device
                .enable_irq(VFIO_PCI_ERR_IRQ_INDEX, vec![event])
                .map_err(|e| refused(format!("setting the error event of {function}"), e))
        })
    }

    /// Opens `function`, and does `more` with it.
    fn open_and(
        &self,
        function: &Bdf,
        more: impl FnOnce(&VfioDevice) -> Result<()>,
    ) -> Result<Opened> {
        let device = VfioDevice::new(&function.path(), self.0.clone())
            .map_err(|e| refused(format!("opening {function} through VFIO"), e))?;
        more(&device)?;
        // Dropping a VfioDevice gives up its group if it believes to be the last user, and two
        // threads that do so at once are in each other's way (the group is EBUSY for the second
        // one). With another reference to the open file, that happens here, where the kernel
        // keeps the group in its container because the function is open.
        let file = another_reference(&device).doing(format!("duplicating {function}'s file"))?;
        Ok(Opened { _file: file })
    }
}

/// The error of a library that has the system's error in its text only: "... (os error 12)".
fn refused(doing: impl Display, error: impl Display) -> Error {
    let text = error.to_string();
    let errno = text
        .split_once("(os error ")
        .and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    match errno {
        Some(errno) => Error::io(doing, io::Error::from_raw_os_error(errno)),
        None => Error::new(format!("{doing}: {text}")),
    }
}

/// A file descriptor of our own for the open file behind `device`.
fn another_reference(device: &VfioDevice) -> io::Result<File> {
    let (here, there) = UnixStream::pair()?;
    here.send_with_fd(&[0_u8][..], device.as_raw_fd())?;
    let (_, file) = there.recv_with_fd(&mut [0])?;
    let file = file.ok_or_else(|| io::Error::other("no file descriptor came back"))?;
    // Or a child process would keep the function open.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(file)
}
