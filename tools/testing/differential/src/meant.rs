// SPDX-License-Identifier: GPL-2.0

//! The differences that are meant, as `meant.toml` lists them.

use std::cell::Cell;

use anyhow::{Context, Result};
use serde::Deserialize;

const FILE: &str = include_str!("../meant.toml");

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    #[serde(default)]
    meant: Vec<Meant>,
}

/// A difference that is meant. `meant.toml` describes the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meant {
    pub name: String,
    pub reason: String,
    call: String,
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
    pub fn read() -> Result<Self> {
        toml::from_str(FILE).context("reading meant.toml")
    }

    /// Whether a difference is meant. Counts it.
    pub fn has(&self, call: &str, c: &str, ours: &str) -> bool {
        let found = self.meant.iter().find(|meant| {
            matches(&meant.call, call) && matches(&meant.c, c) && matches(&meant.ours, ours)
        });
        if let Some(meant) = found {
            meant.matched.set(meant.matched.get() + 1);
        }
        found.is_some()
    }

    /// All differences, each with the number of times that it was found.
    pub fn found(&self) -> impl Iterator<Item = (&Meant, usize)> {
        self.meant.iter().map(|meant| (meant, meant.matched.get()))
    }
}

/// Whether a text matches a pattern, in which `*` is any text.
pub fn matches(pattern: &str, text: &str) -> bool {
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
        assert!(matches("parameter *", "parameter ids"));
        assert!(!matches("parameter", "parameter ids"));
        assert!(!matches("*b", "abc"));
    }

    #[test]
    fn the_file_is_valid() {
        List::read().expect("a valid file");
    }

    #[test]
    fn matches_are_counted() {
        let list: List =
            toml::from_str("[[meant]]\nname = 'n'\nreason = 'r'\ncall = 'a*'\nours = 'EPERM'")
                .expect("a valid list");
        assert!(list.has("abc", "EINVAL", "EPERM"));
        assert!(!list.has("abc", "EINVAL", "EIO"));
        assert_eq!(list.found().map(|(_, count)| count).sum::<usize>(), 1);
    }
}
