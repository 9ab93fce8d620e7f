// SPDX-License-Identifier: GPL-2.0

//! A device that is used through vfio, by calls that are written down.
//!
//! Owns the files, the mapping, the eventfds and the memory of the calls. What does not depend on the
//! driver but on time is waited for here.

use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::mman::ProtFlags;
use nix::unistd;
use vfio_pci_rs_guest::error::Doing;
use vfio_pci_rs_guest::topology::Device;
use vfio_pci_rs_guest::wait;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;
use vfio_pci_rs_raw as raw;
use vfio_pci_rs_raw::Answer;
use vfio_pci_rs_raw::Arena;
use vfio_pci_rs_raw::File;
use vfio_pci_rs_raw::Mapping;
use vfio_pci_rs_raw::Pointer;
use vfio_pci_rs_raw::ARENA;

use crate::abi::feature;
use crate::abi::Request;
use crate::abi::TYPE1V2;
use crate::call::Access;
use crate::call::Argument;
use crate::call::At;
use crate::call::Bad;
use crate::call::Block;
use crate::call::Buffer;
use crate::call::Call;
use crate::call::Handle;
use crate::call::Outcome;
use crate::call::Returned;
use crate::call::BACKGROUND;
use crate::devices::Profile;

/// How many eventfds there are for any purpose.
pub const EVENTS: u8 = 4;

/// One more, to be told that the device wakes. It is signalled while the driver keeps accesses to the
/// device out: what follows from that is done later, some time.
pub const WAKEUP: Handle = Handle::Event(EVENTS);

/// How much of what follows the start of a request's argument is looked at after the call.
const WINDOW: usize = 1024;

/// How much is looked at of what follows that which a read may fill.
const BEYOND: usize = 64;

/// A number that no file has.
const CLOSED: i32 = 0x3fff;

/// How long a device may take to be suspended that nobody uses. Runtime PM does not wait.
const SUSPEND: Duration = Duration::from_secs(2);

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By its group, in a container.
    Group,
    /// By its character device, bound to an iommufd.
    Cdev,
}

/// A call and what came of it.
pub type Entry = (Call, Outcome);

/// A device that calls are made to. Dropping it closes everything.
pub struct Session<'a> {
    mapping: Option<Mapping>,
    /// What the mapping begins with.
    mapped: At,
    device: Option<File>,
    group: Option<File>,
    container: Option<File>,
    iommufd: Option<File>,
    null: File,
    events: Vec<EventFd>,
    /// What mappings are read into and written from.
    pipe: (OwnedFd, OwnedFd),
    arena: Arena,
    /// What the arena has in its first bytes before a call.
    before: Vec<u8>,
    function: &'a Device,
    profile: &'a Profile,
    mode: Mode,
    /// The address space that the device is attached to.
    ioas: u32,
    /// Whether the device goes to sleep whenever nothing is asked of it.
    low_power: bool,
    entries: Vec<Entry>,
}

impl Mode {
    /// Whether the kernel has it.
    pub fn exists(self) -> bool {
        Path::new(match self {
            Mode::Group => "/dev/vfio/vfio",
            Mode::Cdev => "/dev/iommu",
        })
        .exists()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Group => "group",
            Mode::Cdev => "cdev",
        })
    }
}

impl<'a> Session<'a> {
    /// Prepares what is needed, and opens nothing.
    pub fn new(function: &'a Device, profile: &'a Profile, mode: Mode) -> Result<Self> {
        let doing = "preparing a session";
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let events: nix::Result<Vec<EventFd>> = (0..=EVENTS).map(|_| event()).collect();
        Ok(Session {
            mapping: None,
            mapped: At::new(0, 0),
            device: None,
            group: None,
            container: None,
            iommufd: None,
            null: system(doing, File::open(Path::new("/dev/null")))?,
            events: system(doing, events)?,
            pipe: system(doing, unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK))?,
            arena: system(doing, Arena::new())?,
            before: vec![BACKGROUND; ARENA],
            function,
            profile,
            mode,
            ioas: 0,
            low_power: false,
            entries: Vec::new(),
        })
    }

    /// How the device is opened.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The device.
    pub fn profile(&self) -> &'a Profile {
        self.profile
    }

    /// The function.
    pub fn function(&self) -> &'a Device {
        self.function
    }

    /// The address space of an iommufd that [`Session::open`] has made.
    pub fn ioas(&self) -> u32 {
        self.ioas
    }

    /// Closes everything, and returns what was written down.
    pub fn finish(mut self) -> Vec<Entry> {
        self.call(Call::Close);
        std::mem::take(&mut self.entries)
    }

    /// Opens the device, and has it attached to an address space with nothing in it.
    pub fn open(&mut self) {
        match self.mode {
            Mode::Group => {
                self.call(Call::Open(Handle::Container));
                self.call(Call::Open(Handle::Group));
                self.enter_container();
                self.get_device();
            }
            Mode::Cdev => {
                self.call(Call::Open(Handle::Iommufd));
                self.call(Call::Open(Handle::Device));
                self.bind_iommufd();
                self.attach();
            }
        }
    }

    /// Closes everything, and opens the device again.
    pub fn reopen(&mut self) {
        self.call(Call::Close);
        self.open();
    }

    /// Puts the group into the container.
    pub fn enter_container(&mut self) {
        self.call(Call::Ioctl {
            on: Handle::Group,
            request: Request::GROUP_SET_CONTAINER,
            argument: Argument::Block(Block::new().file(Handle::Container)),
        });
        self.call(Call::Ioctl {
            on: Handle::Container,
            request: Request::SET_IOMMU,
            argument: Argument::Number(TYPE1V2),
        });
    }

    /// Gets the device from its group.
    pub fn get_device(&mut self) {
        let mut name = self.function.bdf().to_string().into_bytes();
        name.push(0);
        self.call(Call::Ioctl {
            on: Handle::Group,
            request: Request::GROUP_GET_DEVICE_FD,
            argument: Argument::Block(Block::new().raw(&name)),
        });
    }

    /// Binds the device to the iommufd.
    pub fn bind_iommufd(&mut self) {
        let block = Block::words(&[16, 0]).file(Handle::Iommufd);
        self.call(Call::request(Request::BIND_IOMMUFD, block));
    }

    /// Makes an address space, and attaches the device to it.
    pub fn attach(&mut self) {
        let outcome = self.call(Call::Ioctl {
            on: Handle::Iommufd,
            request: Request::IOAS_ALLOC,
            argument: Argument::Block(Block::words(&[12, 0])),
        });
        self.ioas = outcome.number(8).unwrap_or(0);
        let block = Block::words(&[12, 0, self.ioas]);
        self.call(Call::request(Request::ATTACH_IOMMUFD_PT, block));
    }

    /// Writes down a fact.
    pub fn fact(&mut self, what: impl Into<String>, is: impl Into<String>) {
        let mut outcome = Outcome::new(Returned::Text(is.into()));
        outcome.calls = 0;
        self.entries.push((Call::Fact(what.into()), outcome));
    }

    /// Makes a call, writes it down, and returns what came of it.
    pub fn call(&mut self, call: Call) -> Outcome {
        if self.low_power && uses_device(&call) {
            self.wait_until_suspended();
        }
        let outcome = self.make(&call);
        if outcome.succeeded() {
            self.follow_power(&call);
        }
        self.entries.push((call, outcome.clone()));
        outcome
    }

    fn make(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Open(file) => self.open_file(*file),
            Call::Close => {
                self.close();
                Outcome::new(Returned::Value(0))
            }
            Call::Ioctl {
                on,
                request,
                argument,
            } => self.ioctl(*on, *request, argument),
            Call::Read { at, length, to } => self.read(*at, *length, *to),
            Call::Write { at, bytes, from } => self.write(*at, bytes, *from),
            Call::Patterns {
                offset,
                width,
                bits,
            } => self.patterns(*offset, *width, *bits),
            Call::Map { at, length, access } => self.map(*at, *length, *access),
            Call::Unmap => {
                self.mapping = None;
                Outcome::new(Returned::Value(0))
            }
            Call::Load { offset, length } => self.load(*offset, *length),
            Call::Store { offset, bytes } => self.store(*offset, bytes),
            Call::Signal(number) => match self.events.get(usize::from(*number)) {
                Some(event) => returned(event.write(1)),
                None => Outcome::new(Returned::Nothing),
            },
            Call::Signals => self.signals(),
            Call::Suspended => {
                let suspended = self.wait_until_suspended();
                Outcome::new(Returned::Value(i64::from(suspended)))
            }
            // It is no call.
            Call::Fact(_) => Outcome::new(Returned::Nothing),
        }
    }

    fn open_file(&mut self, file: Handle) -> Outcome {
        let path = match file {
            Handle::Container => Some(PathBuf::from("/dev/vfio/vfio")),
            Handle::Iommufd => Some(PathBuf::from("/dev/iommu")),
            Handle::Group => {
                let group = self.function.iommu_group();
                group.ok().map(|group| Path::new("/dev/vfio").join(group))
            }
            Handle::Device => character_device(self.function).ok(),
            _ => None,
        };
        let Some(path) = path else {
            return Outcome::new(Returned::Nothing);
        };
        match File::open(&path) {
            Ok(opened) => {
                match file {
                    Handle::Container => self.container = Some(opened),
                    Handle::Iommufd => self.iommufd = Some(opened),
                    Handle::Group => self.group = Some(opened),
                    _ => self.device = Some(opened),
                }
                Outcome::new(Returned::File)
            }
            Err(errno) => Outcome::new(Returned::Error(errno)),
        }
    }

    fn close(&mut self) {
        self.mapping = None;
        self.device = None;
        self.group = None;
        self.container = None;
        self.iommufd = None;
        self.low_power = false;
        for event in &self.events {
            // It may have been signalled, or not.
            let _ = event.read();
        }
    }

    fn file(&self, handle: Handle) -> Option<&File> {
        match handle {
            Handle::Device => self.device.as_ref(),
            Handle::Container => self.container.as_ref(),
            Handle::Group => self.group.as_ref(),
            Handle::Iommufd => self.iommufd.as_ref(),
            Handle::Null => Some(&self.null),
            Handle::Event(_) | Handle::Closed | Handle::Nobody => None,
        }
    }

    /// The number by which a structure names a file.
    fn number(&self, handle: Handle) -> i32 {
        match handle {
            Handle::Nobody => -1,
            Handle::Event(number) => self
                .events
                .get(usize::from(number))
                .map_or(CLOSED, |event| event.as_fd().as_raw_fd()),
            _ => self
                .file(handle)
                .map_or(CLOSED, |file| file.as_fd().as_raw_fd()),
        }
    }

    fn ioctl(&mut self, on: Handle, request: Request, argument: &Argument) -> Outcome {
        let (pointer, window) = match argument {
            Argument::Bad(bad) => (pointer_to(*bad), 0..0),
            Argument::Number(number) => (Pointer::Number(*number), 0..0),
            Argument::Block(block) => {
                let mut bytes = block.bytes.clone();
                for &(at, file) in &block.files {
                    bytes[at..at + 4].copy_from_slice(&self.number(file).to_ne_bytes());
                }
                let start = if block.flush { ARENA - bytes.len() } else { 0 };
                let window = start..ARENA.min(start + bytes.len() + WINDOW);
                self.before[window.clone()].fill(BACKGROUND);
                self.before[start..start + bytes.len()].copy_from_slice(&bytes);
                self.arena.bytes_mut()[window.clone()]
                    .copy_from_slice(&self.before[window.clone()]);
                (pointer_at(start), window)
            }
        };
        let file = match on {
            Handle::Device => self.device.as_ref(),
            Handle::Container => self.container.as_ref(),
            Handle::Group => self.group.as_ref(),
            Handle::Iommufd => self.iommufd.as_ref(),
            Handle::Null => Some(&self.null),
            Handle::Event(_) | Handle::Closed | Handle::Nobody => None,
        };
        let Some(file) = file else {
            return Outcome::new(Returned::Nothing);
        };
        let answer = raw::ioctl(file, request.0, &mut self.arena, pointer);
        let mut outcome = Outcome::new(match answer {
            Ok(Answer::Value(value)) => Returned::Value(i64::from(value)),
            Ok(Answer::Closed) => Returned::File,
            Ok(Answer::File(file)) => {
                // A second one is closed.
                self.device.get_or_insert(file);
                Returned::File
            }
            Err(errno) => Returned::Error(errno),
        });
        outcome.changed = changes(&self.before[window.clone()], &self.arena.bytes()[window]);
        outcome
    }

    fn read(&mut self, at: At, length: u32, to: Buffer) -> Outcome {
        let (pointer, start) = buffer(to);
        let end = ARENA.min(start + length as usize + BEYOND);
        let window = start..end;
        self.before[window.clone()].fill(BACKGROUND);
        self.arena.bytes_mut()[window.clone()].fill(BACKGROUND);
        let Some(device) = &self.device else {
            return Outcome::new(Returned::Nothing);
        };
        let read = raw::pread(device, &mut self.arena, pointer, length, at.in_file());
        let mut outcome = match read {
            // All that was read, and not only what differs from what was there.
            Ok(count) if start + count <= end => {
                let mut outcome = Outcome::new(Returned::Value(count as i64));
                let bytes = &self.arena.bytes()[start..start + count];
                if count > 0 {
                    outcome.changed.push((0, bytes.to_vec()));
                }
                let after = start + count..end;
                let beyond = changes(&self.before[after.clone()], &self.arena.bytes()[after]);
                let beyond = beyond.into_iter().map(|(at, bytes)| (at + count, bytes));
                outcome.changed.extend(beyond);
                outcome
            }
            other => {
                let mut outcome = returned(other);
                let bytes = &self.arena.bytes()[window.clone()];
                outcome.changed = changes(&self.before[window], bytes);
                outcome
            }
        };
        self.leave_out_live(&mut outcome, at);
        outcome
    }

    fn write(&mut self, at: At, bytes: &[u8], from: Buffer) -> Outcome {
        let (pointer, start) = buffer(from);
        let Some(device) = &self.device else {
            return Outcome::new(Returned::Nothing);
        };
        let fitting = bytes.len().min(ARENA - start);
        self.arena.bytes_mut()[start..start + fitting].copy_from_slice(&bytes[..fitting]);
        // CAST: What is written is a few kilobytes.
        let length = bytes.len() as u32;
        returned(raw::pwrite(
            device,
            &self.arena,
            pointer,
            length,
            at.in_file(),
        ))
    }

    fn patterns(&mut self, offset: u16, width: u8, bits: bool) -> Outcome {
        let mut outcome = Outcome::new(Returned::Value(0));
        outcome.calls = 0;
        let Some(device) = &self.device else {
            return Outcome::new(Returned::Nothing);
        };
        let at = At::config(u64::from(offset)).in_file();
        let width = usize::from(width);
        // CAST: A few bytes.
        let length = width as u32;
        let mut came = Vec::with_capacity((width * 8 + 4) * width);
        let mut read = |arena: &mut Arena, calls: &mut u32| {
            *calls += 1;
            arena.bytes_mut()[..8].fill(BACKGROUND);
            raw::pread(device, arena, Pointer::At(0), length, at)?;
            came.extend_from_slice(&arena.bytes()[..width]);
            Ok(u64::from_le_bytes(std::array::from_fn(|i| {
                arena.bytes()[i]
            })))
        };
        let mut all = || {
            let original = read(&mut self.arena, &mut outcome.calls)?;
            let patterns = [u64::MAX, 0].into_iter();
            let bits = if bits { width * 8 } else { 0 };
            let bits = (0..bits).map(|bit| 1 << bit);
            for pattern in patterns.chain(bits).chain([original]) {
                outcome.calls += 1;
                self.arena.bytes_mut()[..8].copy_from_slice(&pattern.to_le_bytes());
                raw::pwrite(device, &self.arena, Pointer::At(0), length, at)?;
                read(&mut self.arena, &mut outcome.calls)?;
            }
            Ok(())
        };
        if let Err(errno) = all() {
            outcome.returned = Returned::Error(errno);
        }
        if !came.is_empty() {
            outcome.changed.push((0, came));
        }
        outcome
    }

    fn map(&mut self, at: At, length: u64, access: Access) -> Outcome {
        self.mapping = None;
        let Some(device) = &self.device else {
            return Outcome::new(Returned::Nothing);
        };
        let length = usize::try_from(length).ok().and_then(NonZeroUsize::new);
        let Some(length) = length else {
            return Outcome::new(Returned::Nothing);
        };
        let mut protection = ProtFlags::PROT_NONE;
        protection.set(ProtFlags::PROT_READ, access.read);
        protection.set(ProtFlags::PROT_WRITE, access.write);
        match Mapping::new(device, length, protection, access.shared, at.in_file()) {
            Ok(mapping) => {
                self.mapping = Some(mapping);
                self.mapped = at;
                Outcome::new(Returned::Value(0))
            }
            Err(errno) => Outcome::new(Returned::Error(errno)),
        }
    }

    fn load(&mut self, offset: u64, length: u32) -> Outcome {
        let Some(mapping) = &self.mapping else {
            return Outcome::new(Returned::Nothing);
        };
        // CAST: All of an address space.
        let loaded = mapping.copy_to(offset as usize, length as usize, self.pipe.1.as_fd());
        let mut outcome = returned(loaded);
        let bytes = self.drain();
        if !bytes.is_empty() {
            outcome.changed.push((0, bytes));
        }
        let At {
            region,
            offset: start,
        } = self.mapped;
        self.leave_out_live(&mut outcome, At::new(region, start + offset));
        outcome
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) -> Outcome {
        let Some(mapping) = &self.mapping else {
            return Outcome::new(Returned::Nothing);
        };
        if let Err(errno) = unistd::write(&self.pipe.1, bytes) {
            return Outcome::new(Returned::Error(errno));
        }
        // CAST: All of an address space.
        let stored = mapping.copy_from(offset as usize, bytes.len(), self.pipe.0.as_fd());
        self.drain();
        returned(stored)
    }

    /// Takes out of the pipe what is in it.
    fn drain(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = unistd::read(&self.pipe.0, &mut some) {
            all.extend_from_slice(&some[..count]);
        }
        all
    }

    fn signals(&self) -> Outcome {
        let counts = self.events.iter().map(|event| {
            let count = event.read().unwrap_or(0);
            u8::try_from(count).unwrap_or(u8::MAX)
        });
        let mut outcome = Outcome::new(Returned::Value(0));
        outcome.changed.push((0, counts.collect()));
        outcome
    }

    fn leave_out_live(&self, outcome: &mut Outcome, at: At) {
        for (start, bytes) in &mut outcome.changed {
            for (i, byte) in bytes.iter_mut().enumerate() {
                let offset = at.offset + (*start + i) as u64;
                if self.profile.is_live(at.region, offset) {
                    *byte = 0;
                    outcome.live += 1;
                }
            }
        }
    }

    /// Follows whether the device is in low power. It is suspended when nothing has been asked of it
    /// for a moment, and loses what was in its registers: it has to be suspended before each call, or
    /// before none.
    fn follow_power(&mut self, call: &Call) {
        let Call::Ioctl {
            on: Handle::Device,
            request: Request::FEATURE,
            argument: Argument::Block(block),
        } = call
        else {
            return;
        };
        let Some(flags) = block.bytes.get(4..8) else {
            return;
        };
        let flags = flags.iter().rev().fold(0, |n, &b| (n << 8) | u32::from(b));
        if flags & feature::SET == 0 || flags & feature::PROBE != 0 {
            return;
        }
        match flags & feature::MASK {
            feature::LOW_POWER_ENTRY => self.low_power = true,
            feature::LOW_POWER_EXIT => self.low_power = false,
            // It ends as soon as the device wakes.
            feature::LOW_POWER_ENTRY_WITH_WAKEUP => {
                self.wait_until_suspended();
            }
            _ => {}
        }
    }

    fn wait_until_suspended(&self) -> bool {
        let status = self.function.path().join("power/runtime_status");
        wait::until(
            SUSPEND,
            || fs::read_to_string(&status).is_ok_and(|status| status.trim_end() == "suspended"),
            |suspended| *suspended,
        )
    }
}

/// Whether a call wakes the device, or goes by whether it is awake.
fn uses_device(call: &Call) -> bool {
    match call {
        Call::Ioctl { on, .. } => *on == Handle::Device,
        Call::Read { .. } | Call::Write { .. } | Call::Patterns { .. } => true,
        Call::Load { .. } | Call::Store { .. } | Call::Signal(_) => true,
        _ => false,
    }
}

fn pointer_to(bad: Bad) -> Pointer {
    match bad {
        Bad::Null => Pointer::Null,
        Bad::Guard => Pointer::Guard,
        Bad::Kernel => Pointer::Kernel,
    }
}

fn pointer_at(offset: usize) -> Pointer {
    match u16::try_from(offset) {
        Ok(offset) => Pointer::At(offset),
        Err(_) => Pointer::Guard,
    }
}

/// Where a buffer is, and how far into the arena.
fn buffer(buffer: Buffer) -> (Pointer, usize) {
    match buffer {
        Buffer::Memory => (Pointer::At(0), 0),
        Buffer::Short(length) => {
            let start = ARENA - usize::from(length);
            (pointer_at(start), start)
        }
        Buffer::Bad(bad) => (pointer_to(bad), ARENA),
    }
}

/// Where `after` differs from `before`.
fn changes(before: &[u8], after: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
    if before == after {
        return found;
    }
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        if before == after {
            continue;
        }
        match found.last_mut() {
            Some((start, bytes)) if *start + bytes.len() == at => bytes.push(*after),
            _ => found.push((at, vec![*after])),
        }
    }
    found
}

fn returned(result: nix::Result<usize>) -> Outcome {
    Outcome::new(match result {
        Ok(value) => Returned::Value(value as i64),
        Err(errno) => Returned::Error(errno),
    })
}

/// The file of a device that can be opened without its group.
fn character_device(function: &Device) -> Result<PathBuf> {
    let directory = function.path().join("vfio-dev");
    let doing = || format!("listing {}", directory.display());
    let entry = fs::read_dir(&directory).doing(doing())?.next();
    let entry = entry.ok_or_else(|| Error::new(format!("{} is empty", directory.display())))?;
    Ok(Path::new("/dev/vfio/devices").join(entry.doing(doing())?.file_name()))
}

fn system<T>(doing: &str, result: std::result::Result<T, Errno>) -> Result<T> {
    result.map_err(|errno| Error::io(doing, errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed() {
        assert!(changes(&[1, 2], &[1, 2]).is_empty());
        assert_eq!(
            changes(&[0, 0, 0, 0], &[1, 2, 0, 3]),
            [(0, vec![1, 2]), (3, vec![3])]
        );
    }
}
