// SPDX-License-Identifier: GPL-2.0

//! The programs that run inside the guest: the scenarios, the guest's half of the demonstration,
//! the benchmark, and the walk through failing allocations.

#![forbid(unsafe_code)]

pub mod bench;
pub mod controller;
pub mod faults;
pub mod qemu;
pub mod registers;
pub mod scenarios;
pub mod together;

use anyhow::{ensure, Result};

/// Returns those of `all` whose names are in `only`, or all if it is empty, without those in `skip`.
pub fn choose<T>(
    all: &'static [T],
    only: &[String],
    skip: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<&'static T>> {
    let names: Vec<&str> = all.iter().map(&name).collect();
    for named in only.iter().chain(skip) {
        let known = names.contains(&named.as_str());
        ensure!(known, "'{named}' is not among {names:?}");
    }
    let among = |named: &[String], one: &T| named.iter().any(|named| named == name(one));
    let chosen = |one: &&T| (only.is_empty() || among(only, one)) && !among(skip, one);
    Ok(all.iter().filter(chosen).collect())
}
