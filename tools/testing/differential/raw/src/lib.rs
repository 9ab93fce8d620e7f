// SPDX-License-Identifier: GPL-2.0

//! Calls to vfio with any argument, right or wrong, behind an interface that is safe.
//!
//! Owns the memory that the kernel is pointed to ([`Arena`]), the files that are called ([`File`]),
//! and mappings of devices ([`Mapping`]). Why a wrong argument does no harm to the program:
//!
//! - The kernel reads and writes memory from where an argument points to, upwards and in one piece.
//!   An argument points into the arena, which is followed by memory that cannot be accessed, more of
//!   it than any size in an argument can say; or to where no memory of the program is.
//! - What has a pointer of its own in it is not called with a block that the caller has filled
//!   ([`ioctl`]).

use std::ffi::c_void;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::mman;
use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;
use nix::sys::stat::Mode;

/// What calls of this crate return.
pub type Result<T> = std::result::Result<T, Errno>;

/// Bytes of an [`Arena`].
pub const ARENA: usize = 64 << 10;

/// Bytes behind it that cannot be accessed: more than 32 bits can say.
const GUARD: usize = 8 << 30;

/// Where no memory of a program is: pages from here on cannot be mapped (`vm.mmap_min_addr`).
const LOWEST: u64 = 64 << 10;

/// An address of the kernel.
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

/// Where an argument points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// This far into the arena.
    At(u16),
    /// Nowhere.
    Null,
    /// To the guard, just behind the arena.
    Guard,
    /// To memory of the kernel.
    Kernel,
    /// To this byte of the first pages, which nobody can map: a number that is no pointer.
    Number(u16),
}

/// A file that can be called.
///
/// # Invariants
///
/// `kind` says what `fd` is, or [`Kind::Other`] if it is `/dev/null`.
#[derive(Debug)]
pub struct File {
    fd: OwnedFd,
    kind: Kind,
}

/// What a [`File`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/dev/vfio/vfio`.
    Container,
    /// A VFIO group.
    Group,
    /// A device of vfio.
    Device,
    /// `/dev/iommu`.
    Iommufd,
    /// `/dev/null`.
    Other,
}

/// What a call returned that was no error.
#[derive(Debug)]
pub enum Answer {
    /// A number.
    Value(i32),
    /// A new file.
    File(File),
    /// A new file of a kind that nothing can be asked of here; it is closed.
    Closed,
}

/// A mapping of a file, such as a BAR.
///
/// # Invariants
///
/// `start` is the start of a mapping of `length` bytes, and it is ours.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

/// Requests by their number (`linux/vfio.h`, `linux/iommufd.h`), as far as it matters here what they
/// are.
mod request {
    /// The first and the last one of an IOMMU, in a container.
    pub(crate) const IOMMU: std::ops::RangeInclusive<u32> = 0x3b70..=0x3b75;
    /// `VFIO_GROUP_GET_DEVICE_FD`.
    pub(crate) const GROUP_GET_DEVICE_FD: u32 = 0x3b6a;
    /// `VFIO_DEVICE_GET_GFX_DMABUF`.
    pub(crate) const DEVICE_GET_GFX_DMABUF: u32 = 0x3b73;
    /// `VFIO_DEVICE_FEATURE`.
    pub(crate) const DEVICE_FEATURE: u32 = 0x3b75;
    /// `VFIO_DEVICE_FEATURE_GET` with the number of `VFIO_DEVICE_FEATURE_DMA_BUF`.
    pub(crate) const GET_DMA_BUF: u32 = 0x1_000b;
    /// `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`, and where the pointer in it is.
    pub(crate) const DMA_LOGGING_REPORT: u32 = 8;
    pub(crate) const DMA_LOGGING_REPORT_BITMAP: usize = 8 + 24;
    /// `IOMMU_IOAS_ALLOC`, which has no pointer in it.
    pub(crate) const IOAS_ALLOC: u32 = 0x3b81;
}

impl Arena {
    /// Allocates one.
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
        // INVARIANT: The first part is made accessible below, before anybody has the arena.
        let arena = Arena {
            start: start.cast(),
        };
        // SAFETY: The mapping is ours, and nothing refers to it yet.
        unsafe { mman::mprotect(start, ARENA, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)? };
        Ok(arena)
    }

    /// Returns what is in it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants. The kernel writes to it only in calls that take it mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), ARENA) }
    }

    /// Returns it for being changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), ARENA) }
    }

    /// Where `pointer` points to, in the sense that the kernel can make of it what it wants.
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
        // SAFETY: By the type invariants. The kernel keeps no pointer to it when a call is over.
        let unmapped = unsafe { mman::munmap(self.start.cast(), ARENA + GUARD) };
        debug_assert!(unmapped.is_ok());
    }
}

impl File {
    /// Opens a file of vfio, `/dev/iommu` or `/dev/null`, for reading and writing.
    ///
    /// Gives [`Errno::ENOTSUP`] for any other.
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
        // INVARIANT: These are the kernel's names for them.
        Ok(File { fd, kind })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Container => "container",
            Kind::Group => "group",
            Kind::Device => "device",
            Kind::Iommufd => "iommufd",
            Kind::Other => "null",
        })
    }
}

/// Calls `ioctl(2)`.
///
/// The argument points to where the caller has put a block of any content. Of those that have a
/// pointer of their own in the block to which the kernel or a device could write, those of an IOMMU
/// and of iommufd (except `IOMMU_IOAS_ALLOC`) are not called with a block, but with any other
/// argument; and `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT` only if the pointer is to nowhere.
///
/// # Panics
///
/// If it is asked to do so all the same.
pub fn ioctl(file: &File, request: u32, arena: &mut Arena, argument: Pointer) -> Result<Answer> {
    assert!(
        !has_pointer(file.kind, request, arena, argument),
        "a {} must not be called with {request:#x} and a block",
        file.kind
    );
    let gives_file = gives_file(file.kind, request, arena, argument);

    // SAFETY: The kernel accesses nothing but the arena, as the module says, and nobody else has it.
    // What it does to the file is what a file is for.
    let returned = unsafe {
        libc::ioctl(
            file.fd.as_raw_fd(),
            libc::Ioctl::from(request),
            arena.address(argument),
        )
    };
    let value = Errno::result(returned)?;
    // A program has its standard input: what is new is not 0.
    if !gives_file || value == 0 {
        return Ok(Answer::Value(value));
    }

    // SAFETY: The kernel has just made it, for us.
    let fd = unsafe { OwnedFd::from_raw_fd(value) };
    Ok(match file.kind {
        // INVARIANT: It is what a group gives.
        Kind::Group => Answer::File(File {
            fd,
            kind: Kind::Device,
        }),
        _ => Answer::Closed,
    })
}

/// Whether the kernel, or a device, would write to where a pointer in the block points to.
fn has_pointer(kind: Kind, request: u32, arena: &Arena, argument: Pointer) -> bool {
    let Pointer::At(at) = argument else {
        return false;
    };
    match kind {
        Kind::Container => request::IOMMU.contains(&request),
        Kind::Iommufd => request != request::IOAS_ALLOC,
        Kind::Device if request == request::DEVICE_FEATURE => {
            let at = usize::from(at);
            let reports = number(arena, at + 4)
                .is_some_and(|flags| flags & 0xffff == u64::from(request::DMA_LOGGING_REPORT));
            let bitmap = at + request::DMA_LOGGING_REPORT_BITMAP;
            reports && wide_number(arena, bitmap).is_some_and(|bitmap| bitmap >= LOWEST)
        }
        _ => false,
    }
}

/// Whether what is returned, unless it is an error, is a new file.
fn gives_file(kind: Kind, request: u32, arena: &Arena, argument: Pointer) -> bool {
    match (kind, argument) {
        (Kind::Group, _) => request == request::GROUP_GET_DEVICE_FD,
        (Kind::Device, Pointer::At(at)) if request == request::DEVICE_FEATURE => {
            number(arena, usize::from(at) + 4) == Some(u64::from(request::GET_DMA_BUF))
        }
        (Kind::Device, _) => request == request::DEVICE_GET_GFX_DMABUF,
        _ => false,
    }
}

/// The 32 bits at an offset of the arena, if all of them are in it.
fn number(arena: &Arena, at: usize) -> Option<u64> {
    let bytes = arena.bytes().get(at..at + 4)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |n, &byte| (n << 8) | u64::from(byte)),
    )
}

/// The 64 bits at an offset of the arena, if all of them are in it.
fn wide_number(arena: &Arena, at: usize) -> Option<u64> {
    Some((number(arena, at + 4)? << 32) | number(arena, at)?)
}

/// Calls `pread(2)`: `length` bytes from `offset`, to where `to` points to.
pub fn pread(
    file: &File,
    arena: &mut Arena,
    to: Pointer,
    length: u32,
    offset: i64,
) -> Result<usize> {
    // SAFETY: The kernel accesses nothing but the arena, as the module says, and nobody else has it.
    let read = unsafe {
        libc::pread(
            file.fd.as_raw_fd(),
            arena.address(to) as *mut c_void,
            length as usize,
            offset,
        )
    };
    Errno::result(read).map(isize::unsigned_abs)
}

/// Calls `pwrite(2)`: `length` bytes from where `from` points to, to `offset`.
pub fn pwrite(
    file: &File,
    arena: &Arena,
    from: Pointer,
    length: u32,
    offset: i64,
) -> Result<usize> {
    // SAFETY: The kernel reads nothing but the arena, as the module says.
    let written = unsafe {
        libc::pwrite(
            file.fd.as_raw_fd(),
            arena.address(from) as *const c_void,
            length as usize,
            offset,
        )
    };
    Errno::result(written).map(isize::unsigned_abs)
}

impl Mapping {
    /// Calls `mmap(2)`, at a place that the kernel chooses.
    pub fn new(
        file: &File,
        length: NonZeroUsize,
        protection: ProtFlags,
        shared: bool,
        offset: i64,
    ) -> Result<Self> {
        let flags = if shared {
            MapFlags::MAP_SHARED
        } else {
            MapFlags::MAP_PRIVATE
        };
        // SAFETY: The kernel chooses a place where nothing is. No reference is ever made to what is
        // mapped.
        let start = unsafe { mman::mmap(None, length, protection, flags, file, offset)? };
        // INVARIANT: It has just been mapped.
        Ok(Mapping { start, length })
    }

    /// Has the kernel copy `length` bytes at `at` to `sink`, which is a pipe or the like: what is not
    /// there is an error ([`Errno::EFAULT`]) and not a signal.
    ///
    /// Gives [`Errno::EINVAL`] if there are not as many.
    pub fn copy_to(&self, at: usize, length: usize, sink: BorrowedFd<'_>) -> Result<usize> {
        let from = self.range(at, length)?;
        // SAFETY: The kernel reads the mapping, which is ours.
        Errno::result(unsafe { libc::write(sink.as_raw_fd(), from, length) })
            .map(isize::unsigned_abs)
    }

    /// Has the kernel copy `length` bytes from `source`, a pipe or the like, to `at`.
    ///
    /// Gives [`Errno::EINVAL`] if there are not as many.
    pub fn copy_from(&self, at: usize, length: usize, source: BorrowedFd<'_>) -> Result<usize> {
        let to = self.range(at, length)?;
        // SAFETY: The kernel writes to the mapping, which is ours, and to which nobody has a
        // reference.
        Errno::result(unsafe { libc::read(source.as_raw_fd(), to, length) })
            .map(isize::unsigned_abs)
    }

    fn range(&self, at: usize, length: usize) -> Result<*mut c_void> {
        match at.checked_add(length) {
            Some(end) if end <= self.length.get() => {
                // SAFETY: That is within the mapping.
                Ok(unsafe { self.start.as_ptr().byte_add(at) })
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; there are no references to it.
        let unmapped = unsafe { mman::munmap(self.start, self.length.get()) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_may_end_where_memory_does() {
        let mut arena = Arena::new().expect("memory");
        let null = File::open(Path::new("/dev/null")).expect("/dev/null");
        arena.bytes_mut()[ARENA - 1] = 1;
        assert_eq!(pread(&null, &mut arena, Pointer::Guard, 8, 0), Ok(0));
        assert_eq!(
            ioctl(&null, 0x3b6b, &mut arena, Pointer::At(0)).map(|_| ()),
            Err(Errno::ENOTTY)
        );
    }

    #[test]
    fn only_what_is_known_is_opened() {
        assert_eq!(
            File::open(Path::new("/dev/zero")).map(|_| ()),
            Err(Errno::ENOTSUP)
        );
    }

    #[test]
    #[should_panic(expected = "must not be called")]
    fn a_pointer_in_a_block_is_refused() {
        let mut arena = Arena::new().expect("memory");
        let file = File {
            fd: File::open(Path::new("/dev/null")).expect("/dev/null").fd,
            kind: Kind::Device,
        };
        arena.bytes_mut()[4] = 8;
        arena.bytes_mut()[32 + 7] = 1;
        let _ = ioctl(&file, request::DEVICE_FEATURE, &mut arena, Pointer::At(0));
    }
}
