// SPDX-License-Identifier: GPL-2.0

//! The error of the report: one sentence that says what is wrong.

use std::error;
use std::fmt;

use plotters::drawing::DrawingAreaErrorKind;

/// A sentence for the person who asked for the report.
#[derive(Debug, Clone)]
pub struct Error(String);

/// What fallible functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that this sentence describes.
    pub fn new(sentence: impl Into<String>) -> Self {
        Error(sentence.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Error {}

impl<E: error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for Error {
    fn from(source: DrawingAreaErrorKind<E>) -> Self {
        Error(format!("drawing a picture: {source}"))
    }
}
