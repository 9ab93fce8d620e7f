// SPDX-License-Identifier: GPL-2.0

//! The kernel log, from a mark on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

/// A place in the kernel log.
#[derive(Debug)]
pub struct Mark(File);

impl Mark {
    /// Returns the end of the log.
    pub fn here() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("seeking in /dev/kmsg")?;
        Ok(Mark(file))
    }

    /// Returns the messages since the mark, or since the last call.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        // A read returns one record, which is at most this long.
        let mut record = [0_u8; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => lines.push(message(&String::from_utf8_lossy(&record[..length]))),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // The kernel overwrote messages before they were read.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(e) => return Err(e).context("reading /dev/kmsg"),
            }
        }
    }

    /// Returns the messages that contain every one of `parts`.
    pub fn lines_with(&mut self, parts: &[&str]) -> Result<Vec<String>> {
        let mut lines = self.lines()?;
        lines.retain(|line| parts.iter().all(|part| line.contains(part)));
        Ok(lines)
    }
}

/// A record is `priority,sequence,time,flags;message`, followed by a line for each property.
fn message(record: &str) -> String {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    text.lines().next().unwrap_or("").to_owned()
}
