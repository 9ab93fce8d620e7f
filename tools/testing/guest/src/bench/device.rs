// SPDX-License-Identifier: GPL-2.0

//! An open function, and calls to it of which nothing but the call itself takes time.

use std::fs;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use vfio_bindings::bindings::vfio;
use vfio_pci_rs_raw as raw;
use vfio_pci_rs_raw::Arena;
use vfio_pci_rs_raw::File;
use vfio_pci_rs_raw::Mapping;
use vfio_pci_rs_raw::Pointer;
use vmm_sys_util::eventfd::EventFd;

use crate::error::Doing;
use crate::topology::Device;
use crate::Error;
use crate::Result;

/// Requests (`linux/vfio.h`, `linux/iommufd.h`).
const GET_REGION_INFO: u32 = request(8);
const SET_IRQS: u32 = request(10);
const PCI_HOT_RESET: u32 = request(13);
const BIND_IOMMUFD: u32 = request(18);
const ATTACH_IOMMUFD_PT: u32 = request(19);
const IOAS_ALLOC: u32 = 0x3b81;

/// Where the argument of a call is.
const ARGUMENT: Pointer = Pointer::At(0);

/// Where `struct vfio_region_info` has the region's offset, and how long it is.
const REGION_OFFSET: usize = 24;
const REGION_INFO: u32 = 32;

/// Bytes of a register.
const REGISTER: u32 = 4;

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// An address space of an iommufd. All functions that are reset together have to be opened in one.
#[derive(Debug)]
pub struct AddressSpace {
    iommufd: File,
    id: u32,
}

/// An open function. Dropping it releases the function.
#[derive(Debug)]
pub struct OpenFunction {
    file: File,
    arena: Arena,
    name: String,
}

/// Request `number` of vfio.
const fn request(number: u32) -> u32 {
    ((vfio::VFIO_TYPE as u32) << 8) | (vfio::VFIO_BASE + number)
}

impl AddressSpace {
    /// Makes one, with nothing in it.
    pub fn new() -> Result<Self> {
        let doing = "allocating an IOAS";
        let iommufd = system("opening /dev/iommu", File::open(Path::new("/dev/iommu")))?;
        let mut arena = system(doing, Arena::new())?;
        put(&mut arena, &[12, 0, 0]);
        system(
            doing,
            raw::ioctl(&iommufd, IOAS_ALLOC, &mut arena, ARGUMENT),
        )?;
        let id = word(&arena, 8);
        Ok(AddressSpace { iommufd, id })
    }

    /// Opens `function` by its character device, and attaches it.
    pub fn open(&self, function: &Device) -> Result<OpenFunction> {
        let directory = function.path().join("vfio-dev");
        let doing = format!("listing {}", directory.display());
        let entry = fs::read_dir(&directory)
            .doing(&doing)?
            .next()
            .ok_or_else(|| Error::new(format!("{doing}: it is empty")))?
            .doing(&doing)?;
        let path = Path::new("/dev/vfio/devices").join(entry.file_name());
        let doing = format!("opening {function} at {}", path.display());
        let mut opened = OpenFunction {
            file: system(&doing, File::open(&path))?,
            arena: system(&doing, Arena::new())?,
            name: function.to_string(),
        };
        // CAST: A file descriptor is not negative.
        let iommufd = self.iommufd.as_fd().as_raw_fd() as u32;
        opened.call("binding", BIND_IOMMUFD, &[16, 0, iommufd, 0])?;
        opened.call("attaching", ATTACH_IOMMUFD_PT, &[12, 0, self.id])?;
        Ok(opened)
    }
}

impl OpenFunction {
    /// Resets the bus; the function's siblings are open in the same address space.
    pub fn hot_reset(&mut self) -> Result<()> {
        self.call("resetting the bus of", PCI_HOT_RESET, &[12, 0, 0])
    }

    /// Where the bytes of a region are in the file.
    pub fn region(&mut self, index: u32) -> Result<i64> {
        let words = [REGION_INFO, 0, index, 0, 0, 0, 0, 0];
        self.call("asking for a region of", GET_REGION_INFO, &words)?;
        let bytes = self.arena.bytes().get(REGION_OFFSET..REGION_OFFSET + 8);
        bytes
            .and_then(|bytes| Some(i64::from_ne_bytes(bytes.try_into().ok()?)))
            .ok_or_else(|| Error::new("no offset in what was said of a region"))
    }

    /// Reads a register, `calls` times.
    pub fn read(&mut self, at: i64, calls: usize) -> Result<()> {
        for _ in 0..calls {
            let read = raw::pread(&self.file, &mut self.arena, ARGUMENT, REGISTER, at);
            whole(format_args!("reading from {}", self.name), REGISTER, read)?;
        }
        Ok(())
    }

    /// Writes a zero byte.
    pub fn clear(&mut self, at: i64) -> Result<()> {
        put(&mut self.arena, &[0]);
        let written = raw::pwrite(&self.file, &self.arena, ARGUMENT, 1, at);
        whole(format_args!("writing to {}", self.name), 1, written)
    }

    /// Has the first interrupt of this kind signalled by `event`.
    pub fn set_event(&mut self, index: u32, event: &EventFd) -> Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        // CAST: A file descriptor is not negative.
        let event = event.as_raw_fd() as u32;
        let words = [24, flags, index, 0, 1, event];
        self.call("setting an interrupt of", SET_IRQS, &words)
    }

    /// Has that interrupt signalled as if the function had raised it, `calls` times.
    pub fn trigger(&mut self, index: u32, calls: usize) -> Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        put(&mut self.arena, &[20, flags, index, 0, 1]);
        for _ in 0..calls {
            // The block is the kernel's to read only.
            let answer = raw::ioctl(&self.file, SET_IRQS, &mut self.arena, ARGUMENT);
            system(
                format_args!("triggering an interrupt of {}", self.name),
                answer,
            )?;
        }
        Ok(())
    }

    /// Maps the first page of a region.
    pub fn map(&mut self, at: i64) -> Result<Mapping> {
        let doing = format!("mapping a BAR of {}", self.name);
        system(
            doing,
            Mapping::new(&self.file, PAGE, ProtFlags::PROT_READ, true, at),
        )
    }

    fn call(&mut self, doing: &str, request: u32, words: &[u32]) -> Result<()> {
        put(&mut self.arena, words);
        let answer = raw::ioctl(&self.file, request, &mut self.arena, ARGUMENT);
        system(format_args!("{doing} {}", self.name), answer).map(drop)
    }
}

/// Puts the argument of a call where it has to be.
fn put(arena: &mut Arena, words: &[u32]) {
    for (to, word) in arena.bytes_mut().chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
}

/// What is at an offset, if anything is.
fn word(arena: &Arena, at: usize) -> u32 {
    let bytes = arena.bytes().get(at..at + 4);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

fn system<T>(doing: impl std::fmt::Display, result: std::result::Result<T, Errno>) -> Result<T> {
    result.map_err(|errno| Error::io(doing, errno.into()))
}

fn whole(
    doing: std::fmt::Arguments<'_>,
    wanted: u32,
    result: std::result::Result<usize, Errno>,
) -> Result<()> {
    match system(doing, result)? {
        got if got == wanted as usize => Ok(()),
        got => Err(Error::new(format!(
            "{doing}: {got} bytes instead of {wanted}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_requests() {
        assert_eq!(GET_REGION_INFO, 0x3b6c);
        assert_eq!(BIND_IOMMUFD, 0x3b76);
    }

    #[test]
    fn arguments() {
        let mut arena = Arena::new().expect("memory");
        put(&mut arena, &[1, 2, 3]);
        assert_eq!(word(&arena, 8), 3);
        assert_eq!(word(&arena, raw::ARENA), 0);
    }
}
