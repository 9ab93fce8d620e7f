// SPDX-License-Identifier: GPL-2.0

//! Differences that are meant, as `meant.toml` has them.

use std::cell::Cell;

use serde::Deserialize;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

/// The file as it was when the program was built.
const FILE: &str = include_str!("../meant.toml");

/// All of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    #[serde(default)]
    meant: Vec<Meant>,
}

/// A difference that is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meant {
    /// What it is called.
    pub name: String,
    /// Why it is.
    pub reason: String,
    call: String,
    #[serde(default = "anything")]
    device: String,
    #[serde(default = "anything")]
    c: String,
    #[serde(default = "anything")]
    ours: String,
    /// Why a run may be without it.
    pub conditional: Option<String>,
    #[serde(skip)]
    matched: Cell<usize>,
}

fn anything() -> String {
    "*".to_owned()
}

impl List {
    /// Reads the file.
    pub fn read() -> Result<Self> {
        toml::from_str(FILE).map_err(|e| Error::new(format!("meant.toml: {e}")))
    }

    /// Whether a difference is meant; then it counts for the one that says so.
    pub fn has(&self, device: &str, call: &str, c: &str, ours: &str) -> bool {
        let found = self.meant.iter().find(|meant| {
            matches(&meant.device, device)
                && matches(&meant.call, call)
                && matches(&meant.c, c)
                && matches(&meant.ours, ours)
        });
        if let Some(meant) = found {
            meant.matched.set(meant.matched.get() + 1);
        }
        found.is_some()
    }

    /// All of them, each with how often it was found.
    pub fn found(&self) -> impl Iterator<Item = (&Meant, usize)> {
        self.meant.iter().map(|meant| (meant, meant.matched.get()))
    }
}

/// Whether a text is as the pattern says, in which `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text.strip_prefix(before).is_some_and(|text| {
            (0..=text.len())
                .filter(|&at| text.is_char_boundary(at))
                .any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("*", ""));
        assert!(matches("parameter *", "parameter ids"));
        assert!(matches("*flags 0x1*}", "{argsz 0x8, flags 0x10}"));
        assert!(!matches("parameter", "parameter ids"));
        assert!(!matches("*b", "abc"));
    }

    #[test]
    fn the_file_can_be_read() {
        List::read().expect("a valid file");
    }

    #[test]
    fn what_matches_is_counted() {
        let list: List = toml::from_str(
            "[[meant]]\nname = 'n'\nreason = 'r'\ncall = 'a*'\ndevice = 'vf.*'\nours = 'EPERM'",
        )
        .expect("a valid list");
        assert!(list.has("vf.0", "abc", "EINVAL", "EPERM"));
        assert!(!list.has("igb", "abc", "EINVAL", "EPERM"));
        assert!(!list.has("vf.0", "abc", "EINVAL", "EIO"));
        assert_eq!(list.found().map(|(_, count)| count).sum::<usize>(), 1);
    }
}
