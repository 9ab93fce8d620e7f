// SPDX-License-Identifier: GPL-2.0

//! The differences that are meant, as `meant.toml` lists them.

use std::cell::Cell;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    pub meant: Vec<Meant>,
}

/// A difference that is meant. `meant.toml` describes the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meant {
    pub name: String,
    pub reason: String,
    pub differs: String,
    /// Whether a run may be without it.
    #[serde(skip)]
    pub optional: bool,
    /// How often it was found.
    #[serde(skip)]
    pub found: Cell<usize>,
}

impl List {
    pub fn read() -> Result<Self> {
        toml::from_str(include_str!("../meant.toml")).context("reading meant.toml")
    }

    /// Returns whether a difference is meant, and counts it.
    pub fn has(&self, difference: &str) -> bool {
        let found = self.meant.iter().find(|meant| matches(&meant.differs, difference));
        found.map(|meant| meant.found.set(meant.found.get() + 1)).is_some()
    }
}

/// Returns whether a text matches a pattern, in which `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text.strip_prefix(before).is_some_and(|text| {
            let mut ends = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
            ends.any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("*", ""));
        assert!(matches("fixed *EINVAL*", "fixed Open: EINVAL EPERM"));
        assert!(!matches("fixed", "fixed Open"));
        assert!(!matches("*b", "abc"));
    }

    #[test]
    fn a_match_is_counted() {
        let list = List::read().expect("a valid file");
        assert!(list.has("drivers Fact(\"parameter serialize\"): no call 'vfio_pci_rs'"));
        assert!(!list.has("drivers Fact(\"parameter ids\"): no call ''"));
        assert_eq!(list.meant.iter().map(|meant| meant.found.get()).sum::<usize>(), 1);
    }
}
