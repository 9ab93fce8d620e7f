// SPDX-License-Identifier: GPL-2.0

//! The reset domains that vfio_pci_rs shows in debugfs.

use std::fs;

use anyhow::{bail, ensure, Context, Result};

use crate::sysfs::Bdf;

/// The driver's directory, and its file.
pub const DIRECTORY: &str = "/sys/kernel/debug/vfio_pci_rs";
const FILE: &str = "/sys/kernel/debug/vfio_pci_rs/reset_domains";

const STATES: [&str; 5] = ["idle", "opening", "open", "closing", "cleaning"];
const CONDITIONS: [&str; 3] = ["unknown", "dirty", "clean"];
const KINDS: [&str; 3] = ["slot", "bus", "private"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// `slot`, `bus` or `private`.
    pub kind: String,
    /// The name of the slot, bus or function.
    pub name: String,
    /// The number of bus or slot resets by the driver.
    pub resets: u64,
    /// The number of failed attempts, if another one follows.
    pub failed: u64,
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub function: Bdf,
    /// `idle`, `opening`, `open`, `closing` or `cleaning`.
    pub state: String,
    pub dirty: bool,
    pub clean: bool,
}

pub fn domains() -> Result<Vec<Domain>> {
    parse(&fs::read_to_string(FILE).context(FILE)?)
}

impl Domain {
    pub fn member(&self, function: &Bdf) -> Option<&Member> {
        self.members.iter().find(|m| m.function == *function)
    }

    pub fn dirty(&self) -> usize {
        self.members.iter().filter(|m| m.dirty).count()
    }
}

/// Parses the file: a line for each domain, then an indented line for each of its members.
fn parse(text: &str) -> Result<Vec<Domain>> {
    let mut domains: Vec<Domain> = Vec::new();
    for line in text.lines() {
        let invalid = || format!("reset_domains has an invalid line '{line}'");
        let words = line.split_whitespace().collect::<Vec<_>>();
        match words[..] {
            [function, state, condition]
                if STATES.contains(&state) && CONDITIONS.contains(&condition) =>
            {
                let domain = domains.last_mut().with_context(invalid)?;
                domain.members.push(Member {
                    function: Bdf::parse(function)?,
                    state: state.to_owned(),
                    dirty: condition == "dirty",
                    clean: condition == "clean",
                });
            }
            [kind, name, "resets", resets, ref failed @ ..] if KINDS.contains(&kind) => {
                let failed = match failed {
                    [] => "0",
                    ["failed", failed] => failed,
                    _ => bail!(invalid()),
                };
                domains.push(Domain {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    resets: resets.parse().with_context(invalid)?,
                    failed: failed.parse().with_context(invalid)?,
                    members: Vec::new(),
                });
            }
            _ => bail!(invalid()),
        }
    }
    let empty = domains.iter().any(|domain| domain.members.is_empty());
    ensure!(!empty, "one of the domains is empty: {domains:?}");
    Ok(domains)
}
