// SPDX-License-Identifier: GPL-2.0

//! A call as it is made and as it is written down, and what came of it.

use std::fmt;

use nix::errno::Errno;

use crate::abi::region;
use crate::abi::Request;

/// A file by the part that it plays: its number is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handle {
    /// The device that is tested.
    Device,
    /// VFIO's container.
    Container,
    /// The device's group.
    Group,
    /// The iommufd.
    Iommufd,
    /// `/dev/null`.
    Null,
    /// One of the eventfds.
    Event(u8),
    /// What is not open.
    Closed,
    /// No file: -1.
    Nobody,
}

/// The argument of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A structure.
    Block(Block),
    /// A pointer that is none.
    Bad(Bad),
    /// A number.
    Number(u16),
}

/// Pointers to what is not the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Nowhere.
    Null,
    /// To where the program's memory has ended.
    Guard,
    /// To the kernel.
    Kernel,
}

/// A structure in memory: what is in it, and where it lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// What is in it; what follows in memory is [`BACKGROUND`].
    pub bytes: Vec<u8>,
    /// Where there are files' numbers in it.
    pub files: Vec<(usize, Handle)>,
    /// Whether memory ends where it does.
    pub flush: bool,
}

/// What memory is filled with that no call has been given.
pub const BACKGROUND: u8 = 0xa5;

/// A place in the device's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The region.
    pub region: u32,
    /// How far into it.
    pub offset: u64,
}

/// Where what is read goes to, or what is written comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// Memory, enough of it.
    Memory,
    /// Memory of which there is only so much.
    Short(u16),
    /// No memory.
    Bad(Bad),
}

/// How a region is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It is shared.
    pub shared: bool,
}

/// Something that the program does to the device and that the driver has a part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// The file is opened.
    Open(Handle),
    /// All files are closed.
    Close,
    /// `ioctl(2)`.
    Ioctl {
        on: Handle,
        request: Request,
        argument: Argument,
    },
    /// `pread(2)`.
    Read { at: At, length: u32, to: Buffer },
    /// `pwrite(2)`.
    Write {
        at: At,
        bytes: Vec<u8>,
        from: Buffer,
    },
    /// Ones, zeroes, each bit alone if it is asked for, and what was there before, are written to as
    /// many bytes of configuration space; what is read at first and after each.
    Patterns { offset: u16, width: u8, bits: bool },
    /// `mmap(2)`; what is mapped is the last mapping from then on.
    Map { at: At, length: u64, access: Access },
    /// The last mapping is removed.
    Unmap,
    /// The last mapping is read.
    Load { offset: u64, length: u32 },
    /// The last mapping is written to.
    Store { offset: u64, bytes: Vec<u8> },
    /// An eventfd is signalled.
    Signal(u8),
    /// How often each eventfd was signalled.
    Signals,
    /// The device is waited for until it is suspended.
    Suspended,
    /// Something that can be read in sysfs or the module.
    Fact(String),
}

/// What a call returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// A number that is no error.
    Value(i64),
    /// A new file.
    File,
    /// An error.
    Error(Errno),
    /// A fact.
    Text(String),
    /// There was nothing to call: a file is not open, or nothing mapped.
    Nothing,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it returned.
    pub returned: Returned,
    /// What memory has where it was changed, by offset from the start of the argument or buffer.
    pub changed: Vec<(usize, Vec<u8>)>,
    /// How many bytes of that were left out, because the device changes them by itself.
    pub live: usize,
    /// How many system calls that were.
    pub calls: u32,
}

impl Outcome {
    /// The outcome of one system call that changed nothing.
    pub fn new(returned: Returned) -> Self {
        Outcome {
            returned,
            changed: Vec::new(),
            live: 0,
            calls: 1,
        }
    }

    /// Whether it was no error.
    pub fn succeeded(&self) -> bool {
        matches!(self.returned, Returned::Value(_) | Returned::File)
    }

    /// Where the memory of `other` first is not the same, and what the two have there.
    pub fn differs_at(&self, other: &Outcome) -> Option<(usize, Option<u8>, Option<u8>)> {
        let bytes = |of: &Outcome| -> Vec<(usize, u8)> {
            let runs = of.changed.iter();
            runs.flat_map(|(start, bytes)| (*start..).zip(bytes.iter().copied()))
                .collect()
        };
        let [one, two] = [bytes(self), bytes(other)];
        let at = one.iter().zip(&two).take_while(|(one, two)| one == two);
        let at = at.count();
        match (one.get(at), two.get(at)) {
            (Some(&(offset, a)), Some(&(other, b))) if offset == other => {
                Some((offset, Some(a), Some(b)))
            }
            (Some(&(offset, a)), Some(&(other, _))) if offset < other => {
                Some((offset, Some(a), None))
            }
            (Some(&(offset, a)), None) => Some((offset, Some(a), None)),
            (_, Some(&(other, b))) => Some((other, None, Some(b))),
            (None, None) => None,
        }
    }

    /// The 32 bits that memory has at `offset` after the call, if the call has put them there.
    pub fn number(&self, offset: usize) -> Option<u32> {
        let byte = |at: usize| {
            let (start, bytes) = self
                .changed
                .iter()
                .find(|(start, bytes)| (*start..start + bytes.len()).contains(&at))?;
            Some(u32::from(bytes[at - start]))
        };
        (offset..offset + 4)
            .rev()
            .try_fold(0, |number, at| Some((number << 8) | byte(at)?))
    }
}

impl Block {
    /// An empty one.
    pub fn new() -> Self {
        Block::default()
    }

    /// One of these 32 bits each.
    pub fn words(words: &[u32]) -> Self {
        words
            .iter()
            .fold(Block::new(), |block, &word| block.word(word))
    }

    /// Adds 32 bits.
    pub fn word(self, word: u32) -> Self {
        self.raw(&word.to_ne_bytes())
    }

    /// Adds 64 bits.
    pub fn long(self, long: u64) -> Self {
        self.raw(&long.to_ne_bytes())
    }

    /// Adds bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds the number of a file.
    pub fn file(mut self, file: Handle) -> Self {
        self.files.push((self.bytes.len(), file));
        self.word(0)
    }

    /// Puts it to the end of memory.
    pub fn flush(mut self) -> Self {
        self.flush = true;
        self
    }
}

impl At {
    /// A place in a region.
    pub fn new(region: u32, offset: u64) -> Self {
        At { region, offset }
    }

    /// A place in configuration space.
    pub fn config(offset: u64) -> Self {
        At::new(region::CONFIG, offset)
    }

    /// Its offset in the device's file.
    pub fn in_file(self) -> i64 {
        // CAST: What is too far is a negative offset, as it would be for C.
        (u64::from(self.region) << region::SHIFT).wrapping_add(self.offset) as i64
    }
}

impl Access {
    /// Shared, for reading and writing.
    pub const ALL: Self = Access {
        read: true,
        write: true,
        shared: true,
    };
}

impl Call {
    /// A request to the device with a structure.
    pub fn request(request: Request, block: Block) -> Self {
        Call::Ioctl {
            on: Handle::Device,
            request,
            argument: Argument::Block(block),
        }
    }

    /// The name of a fact, if it is one and no call.
    pub fn as_fact(&self) -> Option<&str> {
        match self {
            Call::Fact(name) => Some(name),
            _ => None,
        }
    }

    /// A read into memory.
    pub fn read(at: At, length: u32) -> Self {
        Call::Read {
            at,
            length,
            to: Buffer::Memory,
        }
    }

    /// A write from memory.
    pub fn write(at: At, bytes: &[u8]) -> Self {
        Call::Write {
            at,
            bytes: bytes.to_vec(),
            from: Buffer::Memory,
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Handle::Device => f.write_str("device"),
            Handle::Container => f.write_str("container"),
            Handle::Group => f.write_str("group"),
            Handle::Iommufd => f.write_str("iommufd"),
            Handle::Null => f.write_str("/dev/null"),
            Handle::Event(number) => write!(f, "eventfd {number}"),
            Handle::Closed => f.write_str("a closed file"),
            Handle::Nobody => f.write_str("-1"),
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bad::Null => "NULL",
            Bad::Guard => "behind the end of memory",
            Bad::Kernel => "the kernel's memory",
        })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.region {
            region::CONFIG => f.write_str("config")?,
            region::ROM => f.write_str("ROM")?,
            region::VGA => f.write_str("VGA")?,
            bar @ 0..region::ROM => write!(f, "BAR{bar}")?,
            other => write!(f, "region {other}")?,
        }
        write!(f, "+{:#x}", self.offset)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{} {}",
            if self.read { "r" } else { "-" },
            if self.write { "w" } else { "-" },
            if self.shared { "shared" } else { "private" }
        )
    }
}

/// Bytes in hexadecimal, not too many of them.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4096;
        if self.0.len() > 16 && self.0.iter().all(|byte| *byte == self.0[0]) {
            return write!(f, "{} times {:02x}", self.0.len(), self.0[0]);
        }
        for (i, byte) in self.0.iter().take(SHOWN).enumerate() {
            if i > 0 && i % 4 == 0 {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, " ... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// A block, with the names of the fields that `request` has.
struct Fields<'a>(&'a Block, Request);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields(block, request) = self;
        let mut at = 0;
        f.write_str("{")?;
        for &(name, size) in request.layout().fields {
            let Some(bytes) = block.bytes.get(at..at + size) else {
                break;
            };
            let separator = if at == 0 { "" } else { ", " };
            match block.files.iter().find(|(offset, _)| *offset == at) {
                Some((_, file)) => write!(f, "{separator}{name} {file}")?,
                None => {
                    let number = bytes.iter().rev().fold(0, |n, &b| (n << 8) | u64::from(b));
                    write!(f, "{separator}{name} {number:#x}")?;
                }
            }
            at += size;
        }
        let rest = &block.bytes[at..];
        if !rest.is_empty() {
            f.write_str(", ")?;
            if block.files.iter().any(|(offset, _)| *offset >= at) {
                let mut separator = "";
                for chunk in (at..block.bytes.len()).step_by(4) {
                    match block.files.iter().find(|(offset, _)| *offset == chunk) {
                        Some((_, file)) => write!(f, "{separator}{file}")?,
                        None => write!(
                            f,
                            "{separator}{}",
                            Hex(&block.bytes[chunk..block.bytes.len().min(chunk + 4)])
                        )?,
                    }
                    separator = ", ";
                }
            } else {
                write!(f, "{}", Hex(rest))?;
            }
        }
        f.write_str("}")?;
        if block.flush {
            f.write_str(" at the end of memory")?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = |f: &mut fmt::Formatter<'_>, which: &str, buffer: &Buffer| match buffer {
            Buffer::Memory => Ok(()),
            Buffer::Short(length) => write!(f, " {which} {length} bytes of memory"),
            Buffer::Bad(bad) => write!(f, " {which} {bad}"),
        };
        match self {
            Call::Open(file) => write!(f, "open {file}"),
            Call::Close => f.write_str("close everything"),
            Call::Ioctl {
                on,
                request,
                argument,
            } => {
                write!(f, "ioctl {on} {request} ")?;
                match argument {
                    Argument::Block(block) => write!(f, "{}", Fields(block, *request)),
                    Argument::Bad(bad) => write!(f, "{bad}"),
                    Argument::Number(number) => write!(f, "{number}"),
                }
            }
            Call::Read { at, length, to } => {
                write!(f, "read {at} {length}")?;
                memory(f, "to", to)
            }
            Call::Write { at, bytes, from } => {
                write!(f, "write {at} {}: {}", bytes.len(), Hex(bytes))?;
                memory(f, "from", from)
            }
            Call::Patterns {
                offset,
                width,
                bits,
            } => {
                let bits = if *bits { ", bits" } else { "" };
                write!(
                    f,
                    "write {} {width}: ones, zeroes{bits}",
                    At::config(u64::from(*offset))
                )
            }
            Call::Map { at, length, access } => write!(f, "map {at} {length:#x} {access}"),
            Call::Unmap => f.write_str("unmap"),
            Call::Load { offset, length } => write!(f, "load mapping+{offset:#x} {length}"),
            Call::Store { offset, bytes } => {
                write!(
                    f,
                    "store mapping+{offset:#x} {}: {}",
                    bytes.len(),
                    Hex(bytes)
                )
            }
            Call::Signal(number) => write!(f, "signal eventfd {number}"),
            Call::Signals => f.write_str("signals of the eventfds"),
            Call::Suspended => f.write_str("is suspended"),
            Call::Fact(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Returned::Value(value) => write!(f, "{value}"),
            Returned::File => f.write_str("a file"),
            Returned::Error(errno) => write!(f, "{errno:?}"),
            Returned::Text(text) => f.write_str(text),
            Returned::Nothing => f.write_str("not made"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.returned)?;
        for (offset, bytes) in &self.changed {
            write!(f, ", +{offset:#x}: {}", Hex(bytes))?;
        }
        if self.live > 0 {
            write!(f, ", {} live bytes left out", self.live)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_can_be_read() {
        let block = Block::words(&[24, 0x24, 1, 0, 1]).file(Handle::Event(2));
        assert_eq!(
            Call::request(Request::SET_IRQS, block).to_string(),
            "ioctl device VFIO_DEVICE_SET_IRQS {argsz 0x18, flags 0x24, index 0x1, start 0x0, \
             count 0x1, eventfd 2}"
        );
        assert_eq!(
            Call::write(At::config(4), &[6, 0]).to_string(),
            "write config+0x4 2: 0600"
        );
    }

    #[test]
    fn where_memory_differs() {
        let outcome = |changed| Outcome {
            changed,
            ..Outcome::new(Returned::Value(0))
        };
        let one = outcome(vec![(4, vec![1, 2, 3])]);
        assert_eq!(one.differs_at(&one), None);
        let two = outcome(vec![(4, vec![1, 2, 4])]);
        assert_eq!(one.differs_at(&two), Some((6, Some(3), Some(4))));
        let two = outcome(vec![(4, vec![1]), (6, vec![3])]);
        assert_eq!(one.differs_at(&two), Some((5, Some(2), None)));
        assert_eq!(
            outcome(Vec::new()).differs_at(&one),
            Some((4, None, Some(1)))
        );
    }

    #[test]
    fn numbers_that_came_back() {
        let mut outcome = Outcome::new(Returned::Value(0));
        outcome.changed = vec![(4, vec![1, 0, 0, 0, 2])];
        assert_eq!(outcome.number(4), Some(1));
        assert_eq!(outcome.number(5), Some(2 << 24));
        assert_eq!(outcome.number(6), None);
    }
}
