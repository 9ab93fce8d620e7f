// SPDX-License-Identifier: GPL-2.0

//! The programs that run inside the guest: the scenarios, the guest's half of the demonstration,
//! the benchmark, and the walk through failing allocations.

#![forbid(unsafe_code)]

pub mod bench;
pub mod faults;
pub mod qemu;
pub mod scenarios;
pub mod together;

use anyhow::{ensure, Result};

/// Returns those of `all` whose names are in `only`, or all if it is empty.
pub fn choose<T>(
    all: &'static [T],
    only: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<&'static T>> {
    let names: Vec<&str> = all.iter().map(&name).collect();
    for only in only {
        let known = names.contains(&only.as_str());
        ensure!(known, "'{only}' is not among {names:?}");
    }
    let chosen = |one: &&T| only.is_empty() || only.iter().any(|only| only == name(one));
    Ok(all.iter().filter(chosen).collect())
}
