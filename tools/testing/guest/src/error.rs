// SPDX-License-Identifier: GPL-2.0

//! The error of the guest programs: one sentence that says what was tried and what came of it.

use std::fmt;
use std::io;

/// A sentence for the person who reads the test's output, with the errno behind it if there is one.
#[derive(Debug, Clone)]
pub struct Error {
    sentence: String,
    errno: Option<i32>,
}

/// What fallible functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that no system call reported.
    pub fn new(sentence: impl Into<String>) -> Self {
        Error {
            sentence: sentence.into(),
            errno: None,
        }
    }

    /// An error from the system, with what was being done when it came.
    pub fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        Error {
            sentence: format!("{doing}: {source}"),
            errno: source.raw_os_error(),
        }
    }

    /// The errno that the kernel gave, if this error came from it.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}

/// Adds to an [`io::Result`] what was being done.
pub trait Doing<T> {
    /// Turns an [`io::Error`] into an [`Error`] that begins with `doing`.
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|source| Error::io(doing, source))
    }
}
