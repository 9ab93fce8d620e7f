// SPDX-License-Identifier: GPL-2.0

//! A function under test and its sibling, used by calls that are recorded.
//!
//! Owns the files, the eventfds and the arguments' memory. Waits for whatever depends
//! on time, so that the same calls have the same outcomes.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::driver::Driver;
use lab::kmsg::Mark;
use lab::topology::Device;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio;
use raw::{Answer, Arena, File, Pointer, ARENA};

pub use self::opening::{bind, Mode};
use crate::call::{Argument, At, Block, Bytes, Call, Handle, Outcome, Request, Returned};
use crate::places::Place;

mod host;
mod opening;

/// The number of eventfds for any purpose.
const EVENTS: u8 = 4;

/// The eventfd that is signalled when a device in low power wakes.
pub const WAKEUP: Handle = Handle::Event(EVENTS);

/// The content of memory before a call.
const BACKGROUND: u8 = 0xa5;

/// How far behind an argument the kernel might write.
const WINDOW: usize = 1024;

/// A descriptor that is never open.
const CLOSED: i32 = 0x3fff;

/// A call and its outcome.
pub type Entry = (Call, Outcome);

/// The state of a recording.
pub struct Session<'a> {
    /// Closed in their order.
    files: BTreeMap<Handle, File>,
    events: Vec<EventFd>,
    arena: Arena,
    /// The first bytes of the arena before a call.
    before: Vec<u8>,
    log: Option<Mark>,
    driver: &'a Driver,
    pub place: &'a Place,
    /// The function under test and its sibling, if any.
    pub functions: &'a [Device],
    pub mode: Mode,
    /// The address space of each iommufd.
    pub ioas: [u32; 2],
    pub entries: Vec<Entry>,
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
        Ok(Session {
            files: BTreeMap::from([(Handle::Null, File::open(Path::new("/dev/null"))?)]),
            events: (0..=EVENTS).map(|_| event()).collect::<nix::Result<_>>()?,
            arena: Arena::new()?,
            before: vec![BACKGROUND; ARENA],
            log: None,
            driver,
            place,
            functions,
            mode,
            ioas: [0; 2],
            entries: Vec::new(),
        })
    }

    pub fn is_open(&self, file: Handle) -> bool {
        self.files.contains_key(&file)
    }

    /// Closes everything and returns the recording.
    pub fn finish(mut self) -> Vec<Entry> {
        self.call(Call::CloseAll);
        std::mem::take(&mut self.entries)
    }

    pub fn fact(&mut self, name: impl Into<String>, is: impl Into<String>) {
        let outcome = Outcome::new(Returned::Text(is.into()));
        self.entries.push((Call::Fact(name.into()), outcome));
    }

    /// Makes and records a call.
    pub fn call(&mut self, call: Call) -> Outcome {
        let outcome = self.make(&call).unwrap_or(Outcome::new(Returned::NotMade));
        self.entries.push((call, outcome.clone()));
        outcome
    }

    /// Makes a request with an argument of these words.
    pub fn ask(&mut self, on: Handle, request: Request, words: &[u32]) -> Outcome {
        self.call(Call::block(on, request, Block::words(words)))
    }

    /// Returns nothing if the call cannot be made.
    fn make(&mut self, call: &Call) -> Option<Outcome> {
        let done = Outcome::new(Returned::Value(0));
        Some(match call {
            Call::Open(file) => self.open_file(*file)?,
            Call::Close(file) => {
                self.files.remove(file)?;
                if let Handle::Device(_) = file {
                    self.settle(file.function());
                }
                done
            }
            Call::CloseAll => {
                self.files.retain(|file, _| *file == Handle::Null);
                self.settle(0);
                self.settle(1);
                self.counters();
                done
            }
            Call::Ioctl(on, request, argument) => self.ioctl(*on, *request, argument)?,
            Call::Read(on, at, length) => self.read(*on, *at, *length)?,
            Call::Write(on, at, bytes) => {
                uio::pwrite(self.files.get(on)?, &bytes.0, at.in_file()).into()
            }
            Call::Signal(number) => self.events.get(usize::from(*number))?.write(1).into(),
            _ => return self.make_on_host(call),
        })
    }

    fn open_file(&mut self, file: Handle) -> Option<Outcome> {
        let path = match file {
            Handle::Null => PathBuf::from("/dev/null"),
            Handle::Container => PathBuf::from("/dev/vfio/vfio"),
            Handle::Iommufd(_) => PathBuf::from("/dev/iommu"),
            Handle::Group(number) => self.group_path(number)?,
            Handle::Device(_) => character_device(self.function(file.function())?)?,
            _ => return None,
        };
        if self.is_open(file) {
            return None;
        }
        Some(match File::open(&path) {
            Ok(opened) => {
                self.files.insert(file, opened);
                Outcome::new(Returned::File)
            }
            Err(errno) => Outcome::new(Returned::Error(errno)),
        })
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
        let file = self.files.get(&handle).map(AsFd::as_fd).or(event.map(AsFd::as_fd));
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
        let file = self.files.get(&on)?;
        let mut outcome = match raw::ioctl(file, request, &mut self.arena, pointer) {
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
        let places = match (sibling, argument) {
            (Some(sibling), Argument::Block(name))
                if name.bytes.starts_with(sibling.as_bytes()) =>
            {
                [Handle::SIBLING; 2]
            }
            _ => [Handle::DEVICE, Handle::AGAIN],
        };
        if let Some(free) = places.into_iter().find(|place| !self.is_open(*place)) {
            self.files.insert(free, file);
        }
    }

    /// Returns all bytes that were read, and changes behind them.
    fn read(&mut self, on: Handle, at: At, length: u32) -> Option<Outcome> {
        let mut buffer = vec![BACKGROUND; length as usize];
        let read = uio::pread(self.files.get(&on)?, &mut buffer, at.in_file());
        let behind = buffer.split_off(read.unwrap_or(0));
        let mut outcome = Outcome::from(read).with(buffer);
        outcome.changed.extend(changes(&vec![BACKGROUND; behind.len()], &behind));
        Some(outcome)
    }

    fn counters(&self) -> Vec<u8> {
        let count = |event: &EventFd| u8::try_from(event.read().unwrap_or(0)).unwrap_or(u8::MAX);
        self.events.iter().map(count).collect()
    }
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
