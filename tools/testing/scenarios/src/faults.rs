// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail one after the other (`Documentation/fault-injection/` in the kernel's
//! source; `CONFIG_FAILSLAB`, `CONFIG_FAIL_PAGE_ALLOC`).
//!
//! A walk repeats an operation. The first time its first allocation fails, the second time its
//! second one, and so on, until the operation ends before its turn comes. The allocations are
//! those of the thread below one function of the kernel: the driver's, vfio's, the PCI core's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use lab::sysfs::write_attribute;
use nix::errno::Errno;

const DEBUGFS: &str = "/sys/kernel/debug";
const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
const KALLSYMS: &str = "/proc/kallsyms";
const KINDS: [&str; 2] = ["failslab", "fail_page_alloc"];

/// Allocations that may sleep fail as well, and single pages.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("failslab", "ignore-gfp-wait", "N"),
    ("fail_page_alloc", "ignore-gfp-wait", "N"),
    ("fail_page_alloc", "min-order", "0"),
];

/// Whether the kernel logs a failing allocation.
const SILENT: &str = "0";
const VERBOSE: &str = "2";

/// More allocations than any operation makes.
const LIMIT: usize = 5000;

/// An operation whose allocations fail.
pub struct Operation<'a> {
    /// The function of the kernel whose allocations fail, with those of its callees.
    pub within: &'static str,
    /// One of its callees whose allocations do not fail.
    pub spared: Option<&'static str>,
    /// The errors that the operation may return.
    pub refusals: &'static [Errno],
    pub prepare: &'a dyn Fn() -> Result<()>,
    /// The part in which allocations fail.
    pub perform: &'a dyn Fn() -> Result<()>,
    /// Checks that a failed operation has changed nothing.
    pub undone: &'a dyn Fn() -> Result<()>,
    /// Checks that the operation succeeded, although an allocation may have failed, and reverts it.
    pub done: &'a dyn Fn() -> Result<()>,
}

/// The results of the operations with a failed allocation.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// By errno, how often the operation failed.
    refused: BTreeMap<i32, usize>,
    /// How often it succeeded.
    tolerated: usize,
}

/// The failing allocation of the calling thread, which must not pass it to another thread.
#[derive(Debug)]
pub struct FailNth {
    file: File,
    every: usize,
}

impl FailNth {
    /// Prepares walks in which one of `every` so many allocations fails.
    pub fn new(every: usize) -> Result<Self> {
        for (kind, setting, value) in SETTINGS {
            set(kind, setting, value)?;
        }
        log(SILENT)?;
        let file = File::options().read(true).write(true).open(FAIL_NTH);
        let file = file.context(FAIL_NTH)?;
        Ok(FailNth { file, every })
    }

    /// Walks through the allocations of `operation`. An error names the allocation, and the
    /// kernel's log shows its place.
    pub fn walk(&self, operation: &Operation<'_>) -> Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        // Once without a failure, for allocations that are made only the first time.
        (operation.prepare)()?;
        (operation.perform)()?;
        (operation.done)()?;
        confine(operation)?;
        for n in (1..LIMIT).step_by(self.every) {
            match self.step(n, operation, &mut outcomes) {
                Ok(true) => {}
                Ok(false) => return Ok(outcomes),
                Err(e) => {
                    self.explain(n, operation).context("once more")?;
                    return Err(e.context(format!("when allocation {n} failed")));
                }
            }
        }
        bail!("there are more than {LIMIT} allocations");
    }

    /// Performs the operation with allocation `n` failing. Returns whether there was one.
    fn step(&self, n: usize, operation: &Operation<'_>, outcomes: &mut Outcomes) -> Result<bool> {
        (operation.prepare)()?;
        let (result, failed) = self.nth(n, operation)?;
        let Err(e) = result else {
            (operation.done)()?;
            outcomes.tolerated += usize::from(failed);
            return Ok(failed);
        };
        let refusal = |errno: &Errno| failed && operation.refusals.contains(errno);
        match lab::errno(&e).filter(refusal) {
            Some(errno) => *outcomes.refused.entry(errno as i32).or_default() += 1,
            None => return Err(e),
        }
        (operation.undone)()?;
        Ok(failed)
    }

    /// Repeats it, so that the log shows the allocation.
    fn explain(&self, n: usize, operation: &Operation<'_>) -> Result<()> {
        (operation.prepare)()?;
        log(VERBOSE)?;
        let done = self.nth(n, operation);
        log(SILENT)?;
        done.map(drop)
    }

    /// Returns the result of the operation, and whether an allocation failed.
    fn nth(&self, n: usize, operation: &Operation<'_>) -> Result<(Result<()>, bool)> {
        let write = |n: usize| self.file.write_all_at(n.to_string().as_bytes(), 0);
        write(n).context(FAIL_NTH)?;
        let result = (operation.perform)();
        // On the stack, as an allocation may still be about to fail.
        let mut text = [0; 16];
        let length = self.file.read_at(&mut text, 0);
        write(0).context(FAIL_NTH)?;
        let left = String::from_utf8_lossy(&text[..length.context(FAIL_NTH)?]).into_owned();
        let left: usize = left.trim().parse().with_context(|| left.clone())?;
        Ok((result, left == 0))
    }
}

/// Limits failures to the allocations of `operation`.
fn confine(operation: &Operation<'_>) -> Result<()> {
    let symbols = fs::read_to_string(KALLSYMS).context(KALLSYMS)?;
    let spared = operation.spared.map(|spared| range(&symbols, spared));
    let spared = spared.transpose()?.unwrap_or((0, 0));
    let required = range(&symbols, operation.within)?;
    for (which, (start, end)) in [("require", required), ("reject", spared)] {
        for kind in KINDS {
            set(kind, &format!("{which}-start"), &format!("{start:#x}"))?;
            set(kind, &format!("{which}-end"), &format!("{end:#x}"))?;
        }
    }
    Ok(())
}

/// Returns the addresses of a function, from the content of `/proc/kallsyms`.
fn range(symbols: &str, function: &str) -> Result<(u64, u64)> {
    let mut start = None;
    let mut addresses = Vec::new();
    for line in symbols.lines() {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next().unwrap_or(""), 16)?;
        if words.nth(1) == Some(function) {
            start.get_or_insert(address);
        }
        addresses.push(address);
    }
    let start = start.with_context(|| format!("{KALLSYMS} has no {function}"))?;
    let end = addresses.into_iter().filter(|&other| other > start).min();
    ensure!(end.is_some(), "{KALLSYMS} ends with {function}");
    Ok((start, end.unwrap_or_default()))
}

fn set(kind: &str, setting: &str, value: &str) -> Result<()> {
    write_attribute(&Path::new(DEBUGFS).join(kind).join(setting), value)
}

fn log(verbosity: &str) -> Result<()> {
    let mut kinds = KINDS.into_iter();
    kinds.try_for_each(|kind| set(kind, "verbose", verbosity))
}

impl Outcomes {
    /// Returns how many allocations failed.
    pub fn failed(&self) -> usize {
        self.refused.values().sum::<usize>() + self.tolerated
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed allocations", self.failed())?;
        for (errno, times) in &self.refused {
            write!(f, ", {:?} {times} times", Errno::from_raw(*errno))?;
        }
        write!(f, ", success {} times", self.tolerated)
    }
}
