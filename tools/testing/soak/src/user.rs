// SPDX-License-Identifier: GPL-2.0

//! The users of functions: one for each IOMMU group, by a container or an iommufd.
//!
//! A user writes a value to a register of a function, and expects to find it there.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, RwLock};

use anyhow::{bail, ensure, Result};
use lab::registers::{self, Content, Kind};
use lab::sysfs::Bdf;
use nix::errno::Errno;
use nix::sys::uio;
use raw::{ask, Answer, Arena, File, Mapping, Pointer, Request};

// linux/vfio.h
const TYPE1V2: u16 = 3;

// The command register, in the region of the config space.
const COMMAND: i64 = place(7, 4);
const MEMORY: u8 = 2;

/// Locked while a process is started. Until it executes its program, it has the files of this one,
/// and a function that is closed meanwhile stays open.
pub static STARTING: RwLock<()> = RwLock::new(());

/// A kind of operations: how many have begun, and have ended.
#[derive(Default)]
pub struct Window(AtomicU64, AtomicU64);

/// A function, and its user's hold of it.
pub struct Function {
    pub role: String,
    pub bdf: Bdf,
    /// `None` for a VF.
    registers: Option<Kind>,
    /// Whether it can be reset alone.
    pub has_flr: bool,
    /// The number of its [`Group`].
    pub group: usize,
    pub open: Mutex<Option<Open>>,
    /// Operations that wait for its user to give it back.
    pub wanted: Window,
    /// Operations that reset it, or make it not answer.
    pub disturbed: Window,
}

/// An open function.
pub struct Open {
    file: Option<File>,
    /// The content of the register, and the disturbances so far, unless there was one meanwhile.
    expected: Option<(u32, u64)>,
    is_attached: bool,
}

/// The files of an IOMMU group's user.
pub struct Group {
    pub is_cdev: bool,
    files: RwLock<Option<Files>>,
}

struct Files {
    /// The number of the group, which changes when all of its functions come and go.
    number: String,
    /// The container or the iommufd.
    main: File,
    group: Option<File>,
    ioas: u32,
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A descriptor is never negative.
fn fd(file: &File) -> u32 {
    file.as_fd().as_raw_fd() as u32
}

/// Returns an offset in the file of a device.
const fn place(region: u32, at: u64) -> i64 {
    ((region as i64) << 40) | at as i64
}

impl Window {
    /// Does `work`, which is one of the operations.
    pub fn during<T>(of: &[&Self], work: impl FnOnce() -> T) -> T {
        of.iter().for_each(|window| _ = window.0.fetch_add(1, SeqCst));
        let value = work();
        of.iter().for_each(|window| _ = window.1.fetch_add(1, SeqCst));
        value
    }

    /// Returns the number of the operations, unless one is going on.
    pub fn quiet(&self) -> Option<u64> {
        let begun = self.0.load(SeqCst);
        (self.1.load(SeqCst) == begun).then_some(begun)
    }
}

impl Group {
    pub fn new(is_cdev: bool) -> Self {
        Group { is_cdev, files: RwLock::new(None) }
    }

    /// Closes the files, unless a function is being opened. Returns whether they are closed.
    pub fn leave(&self) -> bool {
        self.files.try_write().map(|mut files| *files = None).is_ok()
    }

    /// Opens a function, and the files before that.
    fn device(&self, function: &Bdf) -> Result<File> {
        let number = function.iommu_group()?;
        let is_of = |files: &Option<Files>| files.as_ref().is_some_and(|f| f.number == number);
        if !is_of(&self.files.read().expect("no panic")) {
            let mut files = self.files.write().expect("no panic");
            if !is_of(&files) {
                // Before the new ones.
                *files = None;
                *files = Some(self.open_files(number.clone())?);
            }
        }
        let files = self.files.read().expect("no panic");
        let Files { main, group, ioas, .. } = files.as_ref().ok_or(Errno::ENOENT)?;
        if let Some(group) = group {
            return match ask(group, Request::GROUP_GET_DEVICE_FD, function.to_string().as_bytes())?
            {
                (Answer::File(file), _) => Ok(file),
                answer => bail!("a group returned {answer:?}"),
            };
        }
        let mut entries = fs::read_dir(function.path().join("vfio-dev"))?;
        let name = entries.next().ok_or(Errno::ENOENT)??.file_name();
        let file = File::open(&Path::new("/dev/vfio/devices").join(name))?;
        ask(&file, Request::BIND_IOMMUFD, &words(&[16, 0, fd(main), 0]))?;
        ask(&file, Request::ATTACH_IOMMUFD_PT, &words(&[12, 0, *ioas]))?;
        Ok(file)
    }

    /// Lets the devices of the group access a page of an open function, or of none any more.
    /// Returns whether it has a container.
    pub fn map(&self, function: &Function, open: &Open, number: u32) -> Result<bool> {
        let files = self.files.read().expect("no panic");
        let Some(Files { main, group: Some(_), .. }) = &*files else { return Ok(false) };
        match number % 3 {
            0 => raw::unmap_all(main)?,
            _ => {
                let bar = function.registers.map_or(0, |kind| kind.bar);
                let page = Mapping::page(open.file(), place(bar, 0))?;
                page.map_in(main, u64::from(number % 4096) << 12)?;
            }
        }
        Ok(true)
    }

    fn open_files(&self, number: String) -> Result<Files> {
        if self.is_cdev {
            let main = File::open(Path::new("/dev/iommu"))?;
            let (_, ioas) = ask(&main, Request::IOAS_ALLOC, &words(&[12, 0, 0]))?;
            return Ok(Files { number, main, group: None, ioas });
        }
        let main = File::open(Path::new("/dev/vfio/vfio"))?;
        let group = File::open(&Path::new("/dev/vfio").join(&number))?;
        ask(&group, Request::GROUP_SET_CONTAINER, &words(&[fd(&main)]))?;
        raw::ioctl(&main, Request::SET_IOMMU, &mut Arena::new()?, Pointer::Number(TYPE1V2))?;
        Ok(Files { number, main, group: Some(group), ioas: 0 })
    }
}

impl Function {
    pub fn new(role: &str, bdf: &Bdf, has_flr: bool, group: usize) -> Self {
        Function {
            role: role.to_owned(),
            bdf: bdf.clone(),
            registers: match &role[..2] {
                "vf" => None,
                "pa" => Some(registers::IGB),
                _ => Some(registers::VIRTIO),
            },
            has_flr,
            group,
            open: Mutex::new(None),
            wanted: Window::default(),
            disturbed: Window::default(),
        }
    }

    pub fn is_vf(&self) -> bool {
        self.registers.is_none()
    }

    /// Opens the function and writes `tag`. Fails if it is not empty, unless `owed` names a reset
    /// of its slot or bus and it need not be empty.
    pub fn open(&self, group: &Group, tag: u32, must_be_empty: bool) -> Result<Open> {
        let quiet = self.disturbed.quiet();
        let file = group.device(&self.bdf)?;
        let mut open = Open { file: Some(file), expected: None, is_attached: true };
        // From here on, only the user makes it dirty.
        let owed = self.bdf.read("vfio_reset/owed").unwrap_or_default();
        open.enable()?;
        let content = self.content(&open)?;
        let may_be_dirty = !self.has_flr && owed != "none" && !must_be_empty;
        ensure!(
            content == Content::ZERO
                || may_be_dirty
                || quiet.is_none()
                || self.disturbed.quiet() != quiet,
            "{} was handed over with {content}, owed {owed}",
            self.role
        );
        self.write(&mut open, tag)?;
        Ok(open)
    }

    /// Checks that the function is as its user left it, and writes `tag`.
    pub fn touch(&self, open: &mut Open, tag: u32) -> Result<()> {
        let (command, content) = (open.read::<1>(COMMAND)?[0], self.content(open)?);
        // Undisturbed since that was written.
        if let Some((tag, _)) = open.expected.filter(|(_, at)| self.disturbed.quiet() == Some(*at))
        {
            ensure!(
                command & MEMORY != 0 && (content == Content::Value(tag) || self.is_vf()),
                "{} has the command {command:#x} and {content} instead of {tag:#x}",
                self.role
            );
        }
        open.enable()?;
        self.write(open, tag)
    }

    fn write(&self, open: &mut Open, tag: u32) -> Result<()> {
        let quiet = self.disturbed.quiet();
        if let Some(kind) = self.registers {
            open.write(place(kind.bar, kind.register), &tag.to_le_bytes())?;
        }
        open.expected = quiet.map(|quiet| (tag, quiet));
        Ok(())
    }

    fn content(&self, open: &Open) -> Result<Content> {
        let Some(kind) = self.registers else { return Ok(Content::ZERO) };
        kind.content(|at| match open.read(place(kind.bar, at)) {
            // Its memory is disabled.
            Err(Errno::EIO) => Ok(u32::MAX),
            read => Ok(u32::from_le_bytes(read?)),
        })
    }

    /// Resets the function as its user. It is empty after that.
    pub fn reset(&self, open: &mut Open) -> Result<()> {
        open.expected = None;
        let before = self.disturbed.quiet();
        let reset = || raw::ioctl(open.file(), Request::RESET, &mut Arena::new()?, Pointer::Null);
        Window::during(&[&self.disturbed], reset)?;
        let content = self.content(open)?;
        let is_alone = before.is_some_and(|before| self.disturbed.quiet() == Some(before + 1));
        ensure!(content == Content::ZERO || !is_alone, "{} has {content} after reset", self.role);
        Ok(())
    }

    /// Resets the slot or bus as the user of all functions of the group.
    pub fn hot_reset(&self, open: &Open, group: &Group) -> Result<()> {
        let files = group.files.read().expect("no panic");
        let fds: Vec<u32> = files.iter().filter_map(|files| files.group.as_ref()).map(fd).collect();
        // There is one or none.
        let head = [12 + 4 * fds.len() as u32, 0, fds.len() as u32];
        ask(open.file(), Request::HOT_RESET, &words(&[&head[..], &fds].concat()))?;
        Ok(())
    }

    /// Detaches the function from its address space, or attaches it again.
    pub fn toggle(&self, open: &mut Open, group: &Group) -> Result<()> {
        let files = group.files.read().expect("no panic");
        let Some(Files { group: None, ioas, .. }) = &*files else { return Ok(()) };
        match open.is_attached {
            true => ask(open.file(), Request::DETACH_IOMMUFD_PT, &words(&[8, 0]))?,
            false => ask(open.file(), Request::ATTACH_IOMMUFD_PT, &words(&[12, 0, *ioas]))?,
        };
        open.is_attached = !open.is_attached;
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _no_start = STARTING.read().expect("no panic");
        self.file = None;
    }
}

impl Open {
    fn file(&self) -> &File {
        self.file.as_ref().expect("it is closed when this is dropped")
    }

    fn read<const N: usize>(&self, at: i64) -> raw::Result<[u8; N]> {
        let mut bytes = [0xff; N];
        uio::pread(self.file(), &mut bytes, at)?;
        Ok(bytes)
    }

    fn write(&self, at: i64, bytes: &[u8]) -> raw::Result<()> {
        uio::pwrite(self.file(), bytes, at).map(drop)
    }

    fn enable(&self) -> raw::Result<()> {
        self.write(COMMAND, &[self.read::<1>(COMMAND)?[0] | MEMORY])
    }
}
