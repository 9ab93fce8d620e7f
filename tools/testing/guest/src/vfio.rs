// SPDX-License-Identifier: GPL-2.0

//! Opening functions through VFIO's container and groups.
//!
//! A group can be open only once at a time, and the functions of one slot often share a group, so
//! all functions of a group that a test opens together are opened through one [`User`].

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::fcntl::fcntl;
use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use vfio_ioctls::VfioContainer;
use vfio_ioctls::VfioDevice;
use vfio_ioctls::VfioOps;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::error::Doing;
use crate::sysfs::Bdf;
use crate::Error;
use crate::Result;

/// A user of VFIO: a container, and the groups of the functions that it opens, which it keeps
/// until it is dropped.
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
        let container = VfioContainer::new(None)
            .map_err(|e| Error::new(format!("opening a VFIO container: {e}")))?;
        Ok(User(Arc::new(container)))
    }

    /// Opens `function`, and its group if this is the first function of it.
    pub fn open(&self, function: &Bdf) -> Result<Opened> {
        let device = VfioDevice::new(&function.path(), self.0.clone())
            .map_err(|e| Error::new(format!("opening {function} through VFIO: {e}")))?;
        // Dropping a VfioDevice gives up its group if it believes to be the last user, and two
        // threads that do so at once are in each other's way (the group is EBUSY for the second
        // one). With another reference to the open file, that happens here, where the kernel
        // keeps the group in its container because the function is open.
        let file = another_reference(&device).doing(format!("duplicating {function}'s file"))?;
        Ok(Opened { _file: file })
    }
}

/// A file descriptor of our own for the open file behind `device`.
fn another_reference(device: &VfioDevice) -> std::io::Result<File> {
    let (here, there) = UnixStream::pair()?;
    here.send_with_fd(&[0_u8][..], device.as_raw_fd())?;
    let (_, file) = there.recv_with_fd(&mut [0])?;
    let file = file.ok_or_else(|| std::io::Error::other("no file descriptor came back"))?;
    // Or a child process would keep the function open.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(file)
}
