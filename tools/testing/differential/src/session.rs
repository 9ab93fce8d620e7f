// SPDX-License-Identifier: GPL-2.0

//! A function under test and its sibling, used by calls that are recorded.
//!
//! Owns the files, the mapping, the eventfds and the arguments' memory. Waits for whatever depends
//! on time, so that the same calls have the same outcomes.

use std::io::Write;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use anyhow::Result;
use clap::ValueEnum;
use lab::driver::Driver;
use lab::kmsg::Mark;
use lab::machine::STUB;
use lab::sysfs::driver_path;
use lab::topology::Device;
use lab::{driver, wait};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::mman::ProtFlags;
use nix::unistd;
use raw::{Answer, Arena, File, Mapping, Pointer, ARENA};
use vfio_bindings::bindings::vfio;

use crate::call::{Argument, At, Block, Bytes, Call, Handle, Of, Outcome, Request, Returned, To};
use crate::places::Place;
use crate::smoke::{LOW_POWER_ENTRY, LOW_POWER_EXIT, WITH_WAKEUP};

/// The number of eventfds for any purpose.
pub const EVENTS: u8 = 4;

/// The eventfd that is signalled when a device in low power wakes.
pub const WAKEUP: Handle = Handle::Event(EVENTS);

/// The content of memory before a call.
const BACKGROUND: u8 = 0xa5;

/// How far behind an argument the kernel might write.
const WINDOW: usize = 1024;

/// A descriptor that is never open.
const CLOSED: i32 = 0x3fff;

/// The time limit for runtime PM to suspend an idle function.
const SUSPEND: Duration = Duration::from_secs(5);

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Through its group, in a container.
    Group,
    /// Through its character device, bound to an iommufd.
    Cdev,
}

/// A call and its outcome.
pub type Entry = (Call, Outcome);

/// The state of a recording.
pub struct Session<'a> {
    mapping: Option<Mapping>,
    files: [Option<File>; Handle::SLOTS],
    events: Vec<EventFd>,
    /// Carries bytes between a mapping and memory.
    pipe: (OwnedFd, OwnedFd),
    arena: Arena,
    /// The first bytes of the arena before a call.
    before: Vec<u8>,
    log: Option<Mark>,
    driver: &'a Driver,
    place: &'a Place,
    functions: &'a [Device],
    mode: Mode,
    /// The address space of each iommufd.
    ioas: [u32; 2],
    /// Whether the function suspends whenever it is not accessed.
    low_power: bool,
    entries: Vec<Entry>,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Group => "group",
            Mode::Cdev => "cdev",
        }
    }

    /// Whether the kernel has it.
    pub fn exists(self) -> bool {
        let path = match self {
            Mode::Group => "/dev/vfio/vfio",
            Mode::Cdev => "/dev/iommu",
        };
        Path::new(path).exists()
    }
}

impl<'a> Session<'a> {
    /// Prepares a session. `functions` are the function under test and its sibling, if any.
    pub fn new(
        driver: &'a Driver,
        place: &'a Place,
        functions: &'a [Device],
        mode: Mode,
    ) -> Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let mut files = [const { None }; Handle::SLOTS];
        files[Handle::SLOTS - 1] = Some(File::open(Path::new("/dev/null"))?);
        Ok(Session {
            mapping: None,
            files,
            events: (0..=EVENTS).map(|_| event()).collect::<nix::Result<_>>()?,
            pipe: unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?,
            arena: Arena::new()?,
            before: vec![BACKGROUND; ARENA],
            log: None,
            driver,
            place,
            functions,
            mode,
            ioas: [0; 2],
            low_power: false,
            entries: Vec::new(),
        })
    }

    /// Lets [`Call::Log`] read the kernel log from here on.
    pub fn watch_log(&mut self) -> Result<()> {
        self.log = Some(Mark::here()?);
        Ok(())
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn place(&self) -> &'a Place {
        self.place
    }

    pub fn functions(&self) -> &'a [Device] {
        self.functions
    }

    pub fn ioas(&self, iommufd: usize) -> u32 {
        self.ioas[iommufd]
    }

    pub fn recorded(&self) -> usize {
        self.entries.len()
    }

    pub fn is_open(&self, file: Handle) -> bool {
        self.file(file).is_some()
    }

    /// Closes everything and returns the recording.
    pub fn finish(mut self) -> Vec<Entry> {
        self.call(Call::CloseAll);
        std::mem::take(&mut self.entries)
    }

    /// The file of the group of a function. Two functions may be in one group.
    pub fn group(&self, function: u8) -> Handle {
        let group = |number| self.function(number)?.iommu_group().ok();
        match function {
            1 if group(0) != group(1) => Handle::Group(1),
            _ => Handle::Group(0),
        }
    }

    /// Opens `device` and whatever it needs, and attaches it to an empty address space.
    pub fn open(&mut self, device: Handle) {
        match self.mode {
            Mode::Group => {
                let group = self.group(device.function());
                if !self.is_open(Handle::Container) {
                    self.call(Call::Open(Handle::Container));
                }
                if !self.is_open(group) {
                    self.call(Call::Open(group));
                    self.enter_container(group);
                }
                self.get_device(device.function());
            }
            Mode::Cdev => self.open_cdev(device, 0),
        }
    }

    /// Opens `device` by its character device, bound and attached to an iommufd.
    pub fn open_cdev(&mut self, device: Handle, iommufd: u8) {
        if !self.is_open(Handle::Iommufd(iommufd)) {
            self.call(Call::Open(Handle::Iommufd(iommufd)));
            self.allocate(iommufd);
        }
        self.call(Call::Open(device));
        self.call(Call::block(device, Request::BIND_IOMMUFD, bind(Handle::Iommufd(iommufd))));
        let ioas = self.ioas[usize::from(iommufd)];
        self.call(Call::block(device, Request::ATTACH_IOMMUFD_PT, Block::words(&[12, 0, ioas])));
    }

    /// Puts a group into the container.
    pub fn enter_container(&mut self, group: Handle) {
        let container = Block::default().file(Handle::Container);
        self.call(Call::block(group, Request::GROUP_SET_CONTAINER, container));
        // CAST: A small number.
        let type1 = Pointer::Number(vfio::VFIO_TYPE1v2_IOMMU as u16);
        self.call(Call::pointer(Handle::Container, Request::SET_IOMMU, type1));
    }

    /// Gets the device of a function from its group.
    pub fn get_device(&mut self, function: u8) {
        if let Some(name) = self.function(function).map(|of| of.bdf().to_string()) {
            let block = Block::default().raw(name.as_bytes()).raw(&[0]);
            self.call(Call::block(self.group(function), Request::GROUP_GET_DEVICE_FD, block));
        }
    }

    /// Allocates the address space of an iommufd.
    pub fn allocate(&mut self, iommufd: u8) {
        let block = Block::words(&[12, 0, 0]);
        let outcome = self.call(Call::block(Handle::Iommufd(iommufd), Request::IOAS_ALLOC, block));
        self.ioas[usize::from(iommufd)] = outcome.number(8).unwrap_or(0);
    }

    pub fn fact(&mut self, name: impl Into<String>, is: impl Into<String>) {
        let outcome = Outcome::new(Returned::Text(is.into()));
        self.entries.push((Call::Fact(name.into()), outcome));
    }

    /// Makes and records a call.
    pub fn call(&mut self, call: Call) -> Outcome {
        if self.low_power && uses_device(&call) {
            self.wait_until_suspended(0);
        }
        let outcome = self.make(&call).unwrap_or(Outcome::new(Returned::NotMade));
        if outcome.succeeded() {
            self.follow_power(&call);
        }
        self.entries.push((call, outcome.clone()));
        outcome
    }

    /// Returns nothing if the call cannot be made.
    fn make(&mut self, call: &Call) -> Option<Outcome> {
        let done = Outcome::new(Returned::Value(0));
        Some(match call {
            Call::Open(file) => self.open_file(*file)?,
            Call::Close(file) => {
                self.files[file.slot()?].take()?;
                if let Handle::Device(_) = file {
                    self.settle(file.function());
                }
                done
            }
            Call::CloseAll => {
                self.mapping = None;
                let null = Handle::SLOTS - 1;
                self.files[..null].fill_with(|| None);
                self.settle(0);
                self.settle(1);
                self.counters();
                done
            }
            Call::Ioctl(on, request, argument) => self.ioctl(*on, *request, argument)?,
            Call::Read(on, at, length) => self.read(*on, *at, *length)?,
            Call::Write(on, at, bytes) => {
                let file = self.files[on.slot()?].as_ref()?;
                let length = bytes.0.len();
                self.arena.bytes_mut()[..length].copy_from_slice(&bytes.0);
                // CAST: A few kilobytes.
                let length = length as u32;
                raw::pwrite(file, &self.arena, Pointer::At(0), length, at.in_file()).into()
            }
            Call::Map(at, length, write) => {
                self.mapping = None;
                let length = NonZeroUsize::new(usize::try_from(*length).ok()?)?;
                let mut protection = ProtFlags::PROT_READ;
                protection.set(ProtFlags::PROT_WRITE, *write);
                let device = self.file(Handle::DEVICE)?;
                let mapped = Mapping::new(device, length, protection, true, at.in_file());
                mapped.map(|mapping| self.mapping = Some(mapping)).map(|()| 0).into()
            }
            Call::Unmap => {
                self.mapping = None;
                self.settle(0);
                done
            }
            Call::Load(offset, length) => {
                // CAST: An address space holds both.
                let (offset, length) = (*offset as usize, *length as usize);
                let loaded = self.mapping.as_ref()?.copy_to(offset, length, self.pipe.1.as_fd());
                Outcome::from(loaded).with(self.drain())
            }
            Call::Store(offset, bytes) => {
                let mapping = self.mapping.as_ref()?;
                let written = unistd::write(&self.pipe.1, &bytes.0);
                // CAST: An address space holds it.
                let store =
                    |length| mapping.copy_from(*offset as usize, length, self.pipe.0.as_fd());
                let stored = written.and_then(store);
                self.drain();
                stored.into()
            }
            Call::Signal(number) => self.events.get(usize::from(*number))?.write(1).into(),
            Call::Signals => done.with(self.counters()),
            Call::Suspended => Ok(usize::from(self.wait_until_suspended(0))).into(),
            Call::Bind(function, to) => self.bind(*function, *to)?,
            Call::Set(of, name, value) => store(&self.directory(*of)?.join(name), value),
            Call::Reload(parameters) => {
                let parameters: Vec<&str> = parameters.split_whitespace().collect();
                self.text(self.driver.load(&parameters).map(|()| "loaded".to_owned()))
            }
            Call::State(function) => self.state(*function)?,
            Call::Log => {
                let mut lines = self.log.as_mut()?.lines();
                // The kernel seeds its random numbers at some time.
                lines
                    .iter_mut()
                    .for_each(|lines| lines.retain(|line| !line.starts_with("random:")));
                self.text(lines.map(|lines| lines.join(" | ")))
            }
            Call::Fact(_) => return None,
        })
    }

    fn open_file(&mut self, file: Handle) -> Option<Outcome> {
        let path = match file {
            Handle::Null => PathBuf::from("/dev/null"),
            Handle::Container => PathBuf::from("/dev/vfio/vfio"),
            Handle::Iommufd(_) => PathBuf::from("/dev/iommu"),
            Handle::Group(number) => {
                Path::new("/dev/vfio").join(self.function(number)?.iommu_group().ok()?)
            }
            Handle::Device(_) => character_device(self.function(file.function())?)?,
            _ => return None,
        };
        let slot = file.slot().filter(|slot| self.files[*slot].is_none())?;
        Some(match File::open(&path) {
            Ok(opened) => {
                self.files[slot] = Some(opened);
                Outcome::new(Returned::File)
            }
            Err(errno) => Outcome::new(Returned::Error(errno)),
        })
    }

    /// Waits for runtime PM if `function` is not open: on its way through D3hot it may lose its
    /// registers.
    fn settle(&mut self, function: u8) {
        let enabled = self.function(function).map(|of| of.read("enable").unwrap_or_default());
        if enabled.is_some_and(|enabled| enabled == "0") {
            self.low_power &= function != 0;
            self.wait_until_suspended(function);
        }
    }

    fn is_used(&self, function: u8) -> bool {
        match function {
            0 => {
                let open = self.is_open(Handle::DEVICE) || self.is_open(Handle::AGAIN);
                open || self.mapping.is_some()
            }
            _ => self.is_open(Handle::SIBLING),
        }
    }

    fn file(&self, handle: Handle) -> Option<&File> {
        self.files[handle.slot()?].as_ref()
    }

    fn function(&self, number: u8) -> Option<&'a Device> {
        self.functions.get(usize::from(number))
    }

    /// The descriptor that a structure names.
    fn number(&self, handle: Handle) -> i32 {
        let event = match handle {
            Handle::Minus => return -1,
            Handle::Event(number) => self.events.get(usize::from(number)),
            _ => None,
        };
        let file = self.file(handle).map(AsFd::as_fd).or(event.map(AsFd::as_fd));
        file.map_or(CLOSED, |file| file.as_raw_fd())
    }

    fn ioctl(&mut self, on: Handle, request: Request, argument: &Argument) -> Option<Outcome> {
        let (pointer, window) = match argument {
            Argument::Pointer(pointer) => (*pointer, 0..0),
            Argument::Block(block) => {
                let mut bytes = block.bytes.clone();
                for &(at, file) in &block.files {
                    bytes[at..at + 4].copy_from_slice(&self.number(file).to_ne_bytes());
                }
                let start = if block.flush { ARENA - bytes.len() } else { 0 };
                let window = start..ARENA.min(start + bytes.len() + WINDOW);
                let before = &mut self.before[window.clone()];
                before.fill(BACKGROUND);
                before[..bytes.len()].copy_from_slice(&bytes);
                self.arena.bytes_mut()[window.clone()].copy_from_slice(before);
                (u16::try_from(start).map_or(Pointer::Guard, Pointer::At), window)
            }
        };
        let file = self.files[on.slot()?].as_ref()?;
        let mut outcome = match raw::ioctl(file, request.0, &mut self.arena, pointer) {
            Ok(Answer::Value(value)) => Outcome::new(Returned::Value(i64::from(value))),
            Ok(Answer::Closed) => Outcome::new(Returned::File),
            Ok(Answer::File(file)) => {
                self.keep(file, argument);
                Outcome::new(Returned::File)
            }
            Err(errno) => Outcome::new(Returned::Error(errno)),
        };
        outcome.changed = changes(&self.before[window.clone()], &self.arena.bytes()[window]);
        Some(outcome)
    }

    /// Keeps the device file that a group returned, in a free place for its function.
    fn keep(&mut self, file: File, argument: &Argument) {
        let sibling = self.function(1).map(|sibling| sibling.bdf().to_string());
        let places: &[Handle] = match (sibling, argument) {
            (Some(sibling), Argument::Block(name))
                if name.bytes.starts_with(sibling.as_bytes()) =>
            {
                &[Handle::SIBLING]
            }
            _ => &[Handle::DEVICE, Handle::AGAIN],
        };
        let mut slots = places.iter().filter_map(|place| place.slot());
        if let Some(free) = slots.find(|slot| self.files[*slot].is_none()) {
            self.files[free] = Some(file);
        }
    }

    fn read(&mut self, on: Handle, at: At, length: u32) -> Option<Outcome> {
        let window = 0..ARENA.min(length as usize + WINDOW);
        self.before[window.clone()].fill(BACKGROUND);
        self.arena.bytes_mut()[window.clone()].fill(BACKGROUND);
        let file = self.files[on.slot()?].as_ref()?;
        let read = raw::pread(file, &mut self.arena, Pointer::At(0), length, at.in_file());
        // All bytes that were read, the same as the background or not, and changes behind them.
        let count = read.unwrap_or(0);
        let bytes = &self.arena.bytes()[window.clone()];
        let mut outcome = Outcome::from(read).with(bytes[..count].to_vec());
        let beyond = changes(&self.before[count..window.end], &bytes[count..]);
        outcome.changed.extend(beyond.into_iter().map(|(at, bytes)| (at + count, bytes)));
        Some(outcome)
    }

    fn drain(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = unistd::read(&self.pipe.0, &mut some) {
            all.extend_from_slice(&some[..count]);
        }
        all
    }

    fn counters(&self) -> Vec<u8> {
        let count = |event: &EventFd| u8::try_from(event.read().unwrap_or(0)).unwrap_or(u8::MAX);
        self.events.iter().map(count).collect()
    }

    /// Binds a function. One that is in use is left alone: its unbinding would never end.
    fn bind(&mut self, number: u8, to: To) -> Option<Outcome> {
        let function = self.function(number).filter(|_| !self.is_used(number))?;
        let name = match to {
            To::Driver => self.driver.name(),
            To::Stub => STUB,
            To::None => "\n",
        };
        let address = function.bdf().to_string();
        if let Some(bound) = function.driver() {
            let unbound = store(&driver_path(&bound).join("unbind"), &address);
            if !unbound.succeeded() {
                return Some(unbound);
            }
        }
        let set = store(&function.path().join("driver_override"), name);
        Some(if to == To::None { set } else { store(&driver_path(name).join("bind"), &address) })
    }

    fn directory(&self, of: Of) -> Option<PathBuf> {
        match of {
            Of::Driver => Some(driver_path(self.driver.name())),
            Of::Parameters => {
                driver::parameter_path(&self.driver.module(), "ids").parent().map(Path::to_owned)
            }
            Of::Function(number) => Some(self.function(number)?.path()),
        }
    }

    fn state(&mut self, number: u8) -> Option<Outcome> {
        self.settle(number);
        let function = self.function(number)?;
        let read = |attribute: &str| function.read(attribute).unwrap_or_default();
        let driver = function.driver().unwrap_or("unbound".to_owned());
        let (state, enabled) = (read("power_state"), read("enable"));
        let wanted = read("driver_override");
        Some(self.text(Ok::<_, Errno>(format!(
            "{driver}, override {wanted}, {state}, enabled {enabled}"
        ))))
    }

    /// A text, in which the drivers and their modules have the same names.
    fn text(&self, text: Result<String, impl fmt::Display>) -> Outcome {
        let text = text.unwrap_or_else(|error| error.to_string());
        let names = [self.driver.module(), self.driver.name().to_owned()];
        // The C driver's denylist has the same name in the log of both.
        let text = text.replace("vfio-pci device denylist", "device denylist");
        Outcome::new(Returned::Text(names.iter().fold(text, |text, of| text.replace(of, "DRIVER"))))
    }

    /// Follows whether the function is in low power. Runtime PM suspends it after a moment without
    /// an access: it has to be suspended before every call or before none.
    fn follow_power(&mut self, call: &Call) {
        let Call::Ioctl(on, Request::FEATURE, Argument::Block(block)) = call else {
            return;
        };
        let flags = block.bytes[4..8].try_into().map_or(0, u32::from_ne_bytes);
        match flags {
            _ if on.function() != 0 => {}
            LOW_POWER_ENTRY => self.low_power = true,
            LOW_POWER_EXIT => self.low_power = false,
            // Ends as soon as the device wakes.
            WITH_WAKEUP => _ = self.wait_until_suspended(0),
            _ => {}
        }
    }

    fn wait_until_suspended(&self, number: u8) -> bool {
        let name = self.driver.name();
        let Some(function) =
            self.function(number).filter(|of| of.driver().as_deref() == Some(name))
        else {
            return false;
        };
        let never = driver::parameter_path(&self.driver.module(), "disable_idle_d3");
        if fs::read_to_string(never).is_ok_and(|value| value.starts_with('Y')) {
            return false;
        }
        let status = || function.read("power/runtime_status").unwrap_or_default();
        wait::until(SUSPEND, status, |status| status == "suspended") == "suspended"
    }
}

/// The argument of `VFIO_DEVICE_BIND_IOMMUFD`.
pub fn bind(iommufd: Handle) -> Block {
    Block::words(&[16, 0]).file(iommufd).word(0)
}

/// Whether a call wakes the function under test, or depends on whether it is awake.
fn uses_device(call: &Call) -> bool {
    matches!(
        call,
        Call::Ioctl(Handle::Device(_), ..)
            | Call::State(0)
            | Call::Signal(_)
            | Call::Read(..)
            | Call::Write(..)
            | Call::Load(..)
            | Call::Store(..)
    )
}

/// Where `after` differs from `before`.
fn changes(before: &[u8], after: &[u8]) -> Vec<(usize, Bytes)> {
    let mut found: Vec<(usize, Bytes)> = Vec::new();
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        match found.last_mut() {
            _ if before == after => {}
            Some((start, bytes)) if *start + bytes.0.len() == at => bytes.0.push(*after),
            _ => found.push((at, Bytes(vec![*after]))),
        }
    }
    found
}

/// Writes an attribute of sysfs in one system call.
fn store(path: &Path, value: &str) -> Outcome {
    let file = fs::OpenOptions::new().write(true).open(path);
    match file.and_then(|mut file| file.write_all(value.as_bytes())) {
        Ok(()) => Outcome::new(Returned::Value(0)),
        Err(error) => {
            Outcome::new(Returned::Error(Errno::from_raw(error.raw_os_error().unwrap_or(0))))
        }
    }
}

/// The file of a function that needs no group.
fn character_device(function: &Device) -> Option<PathBuf> {
    let entry = fs::read_dir(function.path().join("vfio-dev")).ok()?.next()?.ok()?;
    Some(Path::new("/dev/vfio/devices").join(entry.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed() {
        assert!(changes(&[1, 2], &[1, 2]).is_empty());
        assert_eq!(
            changes(&[0, 0, 0, 0], &[1, 2, 0, 3]),
            [(0, Bytes(vec![1, 2])), (3, Bytes(vec![3]))]
        );
    }
}
