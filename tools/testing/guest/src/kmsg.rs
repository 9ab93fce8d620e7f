// SPDX-License-Identifier: GPL-2.0

//! The kernel log from a mark on, read from `/dev/kmsg`.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

use crate::error::Doing;
use crate::Result;

/// A place in the kernel log.
#[derive(Debug)]
pub struct Mark(File);

impl Mark {
    /// The end of the log as it is now.
    pub fn here() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/kmsg")
            .doing("opening /dev/kmsg")?;
        file.seek(SeekFrom::End(0))
            .doing("seeking to the end of /dev/kmsg")?;
        Ok(Mark(file))
    }

    /// The messages since the mark, or since this was last called.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        // One read returns one record, and the longest record that the kernel gives out is this.
        let mut record = [0_u8; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => lines.push(message(&String::from_utf8_lossy(&record[..length]))),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // Messages were overwritten before they were read: go on with what is left.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(e) => return Err(e).doing("reading /dev/kmsg"),
            }
        }
    }

    /// The messages since the mark that contain every one of `parts`.
    pub fn lines_with(&mut self, parts: &[&str]) -> Result<Vec<String>> {
        let mut lines = self.lines()?;
        lines.retain(|line| parts.iter().all(|part| line.contains(part)));
        Ok(lines)
    }
}

/// A record is `priority,sequence,time,flags;message`, then a line for each property.
fn message(record: &str) -> String {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    text.lines().next().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record() {
        let record = "6,339,5140900,-;vfio_pci_rs 0000:01:00.0: a; b\n SUBSYSTEM=pci\n";
        assert_eq!(message(record), "vfio_pci_rs 0000:01:00.0: a; b");
    }
}
