// SPDX-License-Identifier: GPL-2.0

//! Calls to vfio with any argument, behind a safe interface.
//!
//! Owns the memory of arguments ([`Arena`]) and the files ([`File`]). A wrong argument does no harm
//! to the program:
//!
//! - The kernel accesses memory upwards from where an argument points. That is in the arena, which
//!   is followed by a guard larger than any size in an argument, or where the program has no memory.
//! - [`ioctl`] refuses a block in which the kernel would follow a pointer.

mod request;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::{self, MapFlags, ProtFlags};
use nix::sys::stat::Mode;
use nix::{fcntl, libc};
use vfio_bindings::bindings::vfio::{
    vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap, VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE, VFIO_DMA_UNMAP_FLAG_ALL,
};
use vfio_ioctls::{VfioDevice, VfioOps};

pub use request::Request;

pub type Result<T> = std::result::Result<T, Errno>;

/// The size of an [`Arena`].
pub const ARENA: usize = 64 << 10;

/// The size of the guard behind it: more than 32 bits can express.
const GUARD: usize = 8 << 30;

const KERNEL: usize = 0xffff_8880_0000_0000;

/// Memory for the arguments of calls, with a guard behind it.
///
/// # Invariants
///
/// `start` is the start of a mapping of `ARENA + GUARD` bytes that is ours. The first `ARENA` bytes
/// can be read and written, the others not accessed.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// An offset in the arena.
    At(u16),
    Null,
    /// The guard, just behind the arena.
    Guard,
    /// Memory of the kernel.
    Kernel,
    /// A number instead of a pointer. No program can map these addresses.
    Number(u16),
}

/// Memory that a device may write to, or its registers. Nothing refers to it.
///
/// # Invariants
///
/// `start` is the start of a mapping of `size` bytes that is ours and can be read.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    size: NonZeroUsize,
}

/// An open file.
///
/// # Invariants
///
/// `kind` is the kind of `fd`.
#[derive(Debug)]
pub struct File {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Container,
    Group,
    Device,
    Iommufd,
    /// `/dev/null`.
    Other,
}

/// The result of a call that did not fail.
#[derive(Debug)]
pub enum Answer {
    Value(i32),
    /// A new device.
    File(File),
    /// A new file of another kind, which is closed again.
    Closed,
}

/// Opens a socket that gets the kernel's uevents, and does not block.
pub fn uevents() -> Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: The call has no pointers.
    let fd = Errno::result(unsafe {
        libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT)
    })?;
    // SAFETY: It has just been opened.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: It consists of integers.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = 1;
    let length = size_of_val(&address) as u32;
    // SAFETY: The address has this length.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

/// The requests of the IOMMU in a container.
const OF_IOMMU: RangeInclusive<u32> = 0x3b70..=0x3b75;
const MAP_DMA: u32 = 0x3b71;
const UNMAP_DMA: u32 = 0x3b72;
/// `VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF`.
const GET_DMA_BUF: u32 = 0x1_000b;
/// The feature with a pointer in it.
const DMA_LOGGING_REPORT: u32 = 8;

impl Arena {
    pub fn new() -> Result<Self> {
        const LENGTH: NonZeroUsize = NonZeroUsize::new(ARENA + GUARD).unwrap();

        // SAFETY: The kernel chooses a place where nothing is.
        let start = unsafe {
            mman::mmap_anonymous(
                None,
                LENGTH,
                ProtFlags::PROT_NONE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )?
        };
        // INVARIANT: The first part is made accessible below, before the arena is returned.
        let arena = Arena { start: start.cast() };
        // SAFETY: The mapping is ours, and nothing refers to it yet.
        unsafe { mman::mprotect(start, ARENA, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)? };
        Ok(arena)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants. The kernel writes to it only in calls that take it mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), ARENA) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), ARENA) }
    }

    fn address(&self, pointer: Pointer) -> usize {
        let start = self.start.as_ptr() as usize;
        match pointer {
            Pointer::At(at) => start + usize::from(at),
            Pointer::Null => 0,
            Pointer::Guard => start + ARENA,
            Pointer::Kernel => KERNEL,
            Pointer::Number(number) => usize::from(number),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. The kernel keeps no pointer into it after a call.
        let unmapped = unsafe { mman::munmap(self.start.cast(), ARENA + GUARD) };
        debug_assert!(unmapped.is_ok());
    }
}

impl Mapping {
    const ACCESS: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

    /// Allocates memory for DMA.
    pub fn anonymous(size: NonZeroUsize) -> Result<Self> {
        // SAFETY: The kernel chooses a place where nothing is.
        let start =
            unsafe { mman::mmap_anonymous(None, size, Self::ACCESS, MapFlags::MAP_PRIVATE)? };
        Ok(Mapping { start: start.cast(), size })
    }

    /// Maps a whole region. Fails with `EINVAL` if the device has not got it.
    pub fn region(device: &VfioDevice, index: u32) -> Result<Self> {
        let size = usize::try_from(device.get_region_size(index)).map_err(|_| Errno::EINVAL)?;
        let size = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        let at = device.get_region_offset(index).try_into().map_err(|_| Errno::EINVAL)?;
        // SAFETY: The device is open as long as it is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        // SAFETY: The kernel chooses a place where nothing is.
        let start = unsafe { mman::mmap(None, size, Self::ACCESS, MapFlags::MAP_SHARED, fd, at)? };
        Ok(Mapping { start: start.cast(), size })
    }

    /// Maps a page of the file of a device.
    pub fn page(device: &File, at: i64) -> Result<Self> {
        const SIZE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

        // SAFETY: The kernel chooses a place where nothing is.
        let start =
            unsafe { mman::mmap(None, SIZE, Self::ACCESS, MapFlags::MAP_SHARED, device, at)? };
        Ok(Mapping { start: start.cast(), size: SIZE })
    }

    /// Lets the devices in a container access the memory at `iova`.
    pub fn map_in(&self, container: &File, iova: u64) -> Result<()> {
        let mut argument = vfio_iommu_type1_dma_map {
            argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
            flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            vaddr: self.start.as_ptr() as u64,
            iova,
            size: self.size.get() as u64,
        };
        // SAFETY: The memory is ours, and nothing refers to it. The kernel keeps its pages.
        unsafe { of_iommu(container, MAP_DMA, &mut argument) }
    }

    /// Lets the devices of `user` access the memory at `iova`.
    pub fn map(&self, user: &dyn VfioOps, iova: u64) -> vfio_ioctls::Result<()> {
        // SAFETY: The memory is ours, and nothing refers to it. The kernel keeps its pages.
        unsafe { user.vfio_dma_map(iova, self.size.get(), self.start.as_ptr()) }
    }

    /// Reads the first register.
    pub fn read(&self) -> u32 {
        // SAFETY: By the type invariants. A page is larger.
        unsafe { self.start.cast().read_volatile() }
    }
}

/// Removes all mappings of a container.
pub fn unmap_all(container: &File) -> Result<()> {
    let mut argument = vfio_iommu_type1_dma_unmap {
        argsz: size_of::<vfio_iommu_type1_dma_unmap>() as u32,
        flags: VFIO_DMA_UNMAP_FLAG_ALL,
        ..Default::default()
    };
    // SAFETY: The argument has no pointer.
    unsafe { of_iommu(container, UNMAP_DMA, &mut argument) }
}

/// Calls `ioctl(2)` of a container.
///
/// # Safety
///
/// The request takes such an argument, and devices may access the memory that it names.
unsafe fn of_iommu<T>(container: &File, request: u32, argument: &mut T) -> Result<()> {
    assert_eq!(container.kind, Kind::Container);
    // SAFETY: By the requirements of this function.
    let returned = unsafe {
        libc::ioctl(container.fd.as_raw_fd(), libc::Ioctl::from(request), &raw mut *argument)
    };
    Errno::result(returned).map(drop)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        let unmapped = unsafe { mman::munmap(self.start.cast(), self.size.get()) };
        debug_assert!(unmapped.is_ok());
    }
}

impl File {
    /// Opens a file of vfio, `/dev/iommu` or `/dev/null`. Fails with `ENOTSUP` for any other.
    pub fn open(path: &Path) -> Result<Self> {
        let kind = match path.to_str() {
            Some("/dev/vfio/vfio") => Kind::Container,
            Some("/dev/iommu") => Kind::Iommufd,
            Some("/dev/null") => Kind::Other,
            _ if path.parent() == Some(Path::new("/dev/vfio/devices")) => Kind::Device,
            _ if path.parent() == Some(Path::new("/dev/vfio")) => Kind::Group,
            _ => return Err(Errno::ENOTSUP),
        };
        let fd = fcntl::open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        // INVARIANT: By the kernel's names.
        Ok(File { fd, kind })
    }

    /// Duplicates the file of an open device. Fails with `ENOTSUP` for any other.
    pub fn of_device(device: &impl AsRawFd) -> Result<File> {
        let fd = device.as_raw_fd();
        let link = fcntl::readlink(Path::new(&format!("/proc/self/fd/{fd}")))?;
        let is_cdev = Path::new(&link).parent() == Some(Path::new("/dev/vfio/devices"));
        if link != "anon_inode:[vfio-device]" && !is_cdev {
            return Err(Errno::ENOTSUP);
        }
        // SAFETY: The device is borrowed, so its file stays open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let fd = fd.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        // INVARIANT: By the kernel's name.
        Ok(File { fd, kind: Kind::Device })
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Calls `ioctl(2)`.
///
/// # Panics
///
/// Panics if the block has a pointer through which the kernel or a device could write: in requests
/// of an IOMMU, of iommufd (except `IOMMU_IOAS_ALLOC`), and in
/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`.
pub fn ioctl(
    file: &File,
    request: Request,
    arena: &mut Arena,
    argument: Pointer,
) -> Result<Answer> {
    assert!(
        !has_pointer(file.kind, request, arena, argument),
        "a {:?} must not be called with {request:?} and a block",
        file.kind
    );
    let gives_file = gives_file(file.kind, request, arena, argument);

    // SAFETY: The kernel accesses nothing but the arena, see the crate's documentation, and the
    // borrow is exclusive.
    let returned = unsafe {
        libc::ioctl(file.fd.as_raw_fd(), libc::Ioctl::from(request.0), arena.address(argument))
    };
    let value = Errno::result(returned)?;
    // Standard input is open: a new file is not 0.
    if !gives_file || value == 0 {
        return Ok(Answer::Value(value));
    }

    // SAFETY: The kernel has just opened it for this program.
    let fd = unsafe { OwnedFd::from_raw_fd(value) };
    Ok(match file.kind {
        // INVARIANT: A group returns devices.
        Kind::Group => Answer::File(File { fd, kind: Kind::Device }),
        _ => Answer::Closed,
    })
}

/// Calls `ioctl(2)` with an argument in memory. Also returns the value that it writes behind eight
/// bytes.
pub fn ask(file: &File, request: Request, argument: &[u8]) -> Result<(Answer, u32)> {
    let mut arena = Arena::new()?;
    arena.bytes_mut()[..argument.len()].copy_from_slice(argument);
    let answer = ioctl(file, request, &mut arena, Pointer::At(0))?;
    let bytes = arena.bytes()[8..12].try_into().expect("four bytes");
    Ok((answer, u32::from_ne_bytes(bytes)))
}

/// Returns whether the kernel or a device would write through a pointer in the block.
fn has_pointer(kind: Kind, request: Request, arena: &Arena, argument: Pointer) -> bool {
    let Pointer::At(at) = argument else {
        return false;
    };
    match kind {
        Kind::Container => OF_IOMMU.contains(&request.0),
        Kind::Iommufd => request != Request::IOAS_ALLOC,
        Kind::Device if request == Request::FEATURE => {
            let flags = number(arena, usize::from(at) + 4);
            flags.is_some_and(|flags| flags & 0xffff == DMA_LOGGING_REPORT)
        }
        _ => false,
    }
}

/// Returns whether the request returns a new file.
fn gives_file(kind: Kind, request: Request, arena: &Arena, argument: Pointer) -> bool {
    match (kind, argument) {
        (Kind::Group, _) => request == Request::GROUP_GET_DEVICE_FD,
        (Kind::Device, Pointer::At(at)) if request == Request::FEATURE => {
            number(arena, usize::from(at) + 4) == Some(GET_DMA_BUF)
        }
        (Kind::Device, _) => request == Request::GET_GFX_DMABUF,
        _ => false,
    }
}

/// Returns the 32 bits at an offset of the arena.
fn number(arena: &Arena, at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(arena.bytes().get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_may_end_where_memory_does() {
        let mut arena = Arena::new().expect("memory");
        let null = File::open(Path::new("/dev/null")).expect("/dev/null");
        arena.bytes_mut()[ARENA - 1] = 1;
        let answer = ioctl(&null, Request::GET_INFO, &mut arena, Pointer::At(u16::MAX));
        assert_eq!(answer.map(|_| ()), Err(Errno::ENOTTY));
    }

    #[test]
    fn only_what_is_known_is_opened() {
        assert_eq!(File::open(Path::new("/dev/zero")).map(|_| ()), Err(Errno::ENOTSUP));
    }

    #[test]
    #[should_panic(expected = "must not be called")]
    fn a_pointer_in_a_block_is_refused() {
        let mut arena = Arena::new().expect("memory");
        let null = File::open(Path::new("/dev/null")).expect("/dev/null");
        let file = File { fd: null.fd, kind: Kind::Device };
        arena.bytes_mut()[4] = 8;
        let _ = ioctl(&file, Request::FEATURE, &mut arena, Pointer::At(0));
    }
}
