// SPDX-License-Identifier: GPL-2.0

//! A call, how it is written down, and its outcome.

use std::fmt;

use nix::errno::Errno;
use raw::Pointer;
pub use raw::Request;
use vfio_bindings::bindings::vfio;

/// A file by its role. File descriptors differ from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handle {
    /// See [`Handle::DEVICE`], [`Handle::SIBLING`] and [`Handle::AGAIN`].
    Device(u8),
    /// The group of the function with this number.
    Group(u8),
    Container,
    Iommufd(u8),
    /// `/dev/null`.
    Null,
    Event(u8),
    /// A descriptor that is never open.
    Closed,
    /// -1.
    Minus,
}

impl Handle {
    /// The function under test.
    pub const DEVICE: Self = Handle::Device(0);
    /// The other function of its bus.
    pub const SIBLING: Self = Handle::Device(1);
    /// The function under test, opened a second time.
    pub const AGAIN: Self = Handle::Device(2);
    /// All files that a session can hold.
    pub const ALL: [Self; 9] = {
        use Handle::*;
        [
            Device(0),
            Device(1),
            Device(2),
            Group(0),
            Group(1),
            Container,
            Iommufd(0),
            Iommufd(1),
            Null,
        ]
    };

    /// The number of the function that a device file is of.
    pub fn function(self) -> u8 {
        u8::from(self == Self::SIBLING)
    }
}

/// All requests that a device might know, and a few more.
pub fn requests_of_device() -> impl Iterator<Item = Request> {
    (Request::GET_INFO.0..0x3b7c).map(Request)
}

/// The argument of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Block(Block),
    Pointer(Pointer),
}

/// Bytes that are shown in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A structure in memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Block {
    pub bytes: Vec<u8>,
    /// Where descriptors are filled in.
    pub files: Vec<(usize, Handle)>,
    /// Whether memory ends where the block does.
    pub flush: bool,
}

impl Block {
    pub fn words(words: &[u32]) -> Self {
        words.iter().fold(Block::default(), |block, word| block.word(*word))
    }

    pub fn word(self, word: u32) -> Self {
        self.raw(&word.to_ne_bytes())
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn file(mut self, file: Handle) -> Self {
        self.files.push((self.bytes.len(), file));
        self.word(0)
    }

    pub fn flush(mut self) -> Self {
        self.flush = true;
        self
    }
}

/// A place in a device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub region: u32,
    pub offset: u64,
}

impl At {
    pub fn config(offset: u64) -> Self {
        At { region: vfio::VFIO_PCI_CONFIG_REGION_INDEX, offset }
    }

    /// `VFIO_PCI_INDEX_TO_OFFSET()` of `vfio_pci_core.h`.
    pub fn in_file(self) -> i64 {
        // CAST: An offset that is too far is negative, as it is in C.
        (u64::from(self.region) << 40).wrapping_add(self.offset) as i64
    }
}

/// A driver that a function can be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The driver of the run.
    Driver,
    /// `pci-stub`.
    Stub,
    None,
}

/// The directory of an attribute in sysfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Bus,
    Driver,
    Parameters,
    Function(u8),
}

/// An operation on a function or on the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Open(Handle),
    Close(Handle),
    CloseAll,
    Ioctl(Handle, Request, Argument),
    Read(Handle, At, u32),
    Write(Handle, At, Bytes),
    /// Signals an eventfd.
    Signal(u8),
    /// Waits until a function is suspended.
    Suspended(u8),
    Bind(u8, To),
    /// Writes an attribute in sysfs.
    Set(Of, &'static str, String),
    /// Loads the module again with these parameters.
    Reload(&'static str),
    /// Reads the state of a function from sysfs, once runtime PM has settled.
    State(u8),
    /// Reads the configuration space of a function as the host sees it.
    Config(u8),
    /// Reads which legacy addresses a display answers to, as the VGA arbiter believes.
    Legacy(u8),
    /// Reads the lines of the kernel log since the last call.
    Log,
    Fact(String),
}

impl Call {
    /// A request to the function under test.
    pub fn device(request: Request, block: Block) -> Self {
        Call::block(Handle::DEVICE, request, block)
    }

    pub fn block(on: Handle, request: Request, block: Block) -> Self {
        Call::Ioctl(on, request, Argument::Block(block))
    }

    pub fn pointer(on: Handle, request: Request, pointer: Pointer) -> Self {
        Call::Ioctl(on, request, Argument::Pointer(pointer))
    }

    pub fn config(offset: u64, bytes: &[u8]) -> Self {
        Call::Write(Handle::DEVICE, At::config(offset), Bytes(bytes.to_vec()))
    }

    /// The name of the fact, if it is one.
    pub fn as_fact(&self) -> Option<&str> {
        match self {
            Call::Fact(name) => Some(name),
            _ => None,
        }
    }
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    Value(i64),
    File,
    Error(Errno),
    Text(String),
    /// The call could not be made: the file is not open.
    NotMade,
}

/// The result of a call, and its effect on memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    pub returned: Returned,
    /// The bytes that were changed, by offset from the start of the argument or buffer.
    pub changed: Vec<(usize, Bytes)>,
}

impl Outcome {
    pub fn new(returned: Returned) -> Self {
        Outcome { returned, changed: Vec::new() }
    }

    /// Adds bytes from the start of the buffer.
    pub fn with(mut self, bytes: Vec<u8>) -> Self {
        self.changed.extend((!bytes.is_empty()).then_some((0, Bytes(bytes))));
        self
    }

    pub fn succeeded(&self) -> bool {
        matches!(self.returned, Returned::Value(_) | Returned::File)
    }

    /// The 32 bits at `offset`, if the call has changed them.
    pub fn number(&self, offset: usize) -> Option<u32> {
        let (start, bytes) = self
            .changed
            .iter()
            .find(|(start, bytes)| (*start..start + bytes.0.len()).contains(&offset))?;
        let word = bytes.0.get(offset - start..offset - start + 4)?;
        Some(u32::from_ne_bytes(word.try_into().ok()?))
    }
}

impl From<nix::Result<usize>> for Outcome {
    fn from(result: nix::Result<usize>) -> Self {
        // CAST: The kernel's `ssize_t`.
        let returned = result.map_or_else(Returned::Error, |value| Returned::Value(value as i64));
        Outcome::new(returned)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [first, rest @ ..] if rest.len() > 16 && rest.iter().all(|byte| byte == first) => {
                write!(f, "{} times {first:02x}", rest.len() + 1)
            }
            bytes => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.flush { "at the end of memory {" } else { "{" })?;
        for (i, word) in self.bytes.chunks(4).enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            match (self.files.iter().find(|(at, _)| *at == 4 * i), word.try_into()) {
                (Some((_, file)), _) => write!(f, "{file:?}")?,
                (None, Ok(word)) => write!(f, "{:#x}", u32::from_ne_bytes(word))?,
                (None, Err(_)) => write!(f, "{:?}", Bytes(word.to_vec()))?,
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.returned)?;
        self.changed.iter().try_for_each(|(at, bytes)| write!(f, ", +{at:#x}: {bytes:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_came_back() {
        let mut outcome = Outcome::new(Returned::Value(0));
        outcome.changed = vec![(4, Bytes(vec![1, 0, 0, 0, 2]))];
        assert_eq!(outcome.number(4), Some(1));
        assert_eq!(outcome.number(5), Some(2 << 24));
        assert_eq!(outcome.number(6), None);
    }
}
