// SPDX-License-Identifier: GPL-2.0

//! The differences between vfio-pci and vfio_pci_rs that are meant.

use std::cell::Cell;

/// Each as a pattern and its reason. A pattern has the script, the call, and the outcomes on
/// vfio-pci and on vfio_pci_rs, as the report shows them; `*` is any text.
const MEANT: &[(&str, &str)] = &[
    ("drivers Fact(\"parameter serialize\"): *", "vfio-pci serialises all functions of a bus"),
    (
        "drivers Fact(\"parameter background_reset\"): *",
        "vfio-pci resets a function within close()",
    ),
    (
        "drivers Fact(\"parameter bus_reset\"): *",
        "vfio-pci makes no bus reset for functions with a reset of their own",
    ),
    (
        "fixed Fact(\"file vfio_reset of function *\"): *",
        "vfio-pci has no account of clean functions",
    ),
    (
        "drivers Fact(\"parameter skip_clean_reset\"): *",
        "vfio-pci does not know which functions are clean",
    ),
    ("drivers Fact(\"parameter strict\"): *", "vfio-pci does not know which functions are dirty"),
    (
        "drivers Log: * *: bridges cannot be given to user space*",
        "the log says why a bridge is refused",
    ),
];

/// A difference that is meant.
#[derive(Debug)]
pub struct Meant {
    differs: String,
    pub reason: String,
    /// Whether a run may be without it.
    pub optional: bool,
    /// How often it was found.
    pub found: Cell<usize>,
}

#[derive(Debug, Default)]
pub struct List(pub Vec<Meant>);

impl List {
    /// Returns all of them. A part of the test may be without some.
    pub fn new(is_part: bool) -> Self {
        let mut list = List::default();
        MEANT.iter().for_each(|(differs, reason)| list.add(differs, reason, is_part));
        list
    }

    pub fn add(&mut self, differs: &str, reason: &str, optional: bool) {
        let (differs, reason) = (differs.to_owned(), reason.to_owned());
        self.0.push(Meant { differs, reason, optional, found: Cell::new(0) });
    }

    /// Returns whether a difference is meant, and counts it.
    pub fn has(&self, difference: &str) -> bool {
        let found = self.0.iter().find(|meant| matches(&meant.differs, difference));
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
}
