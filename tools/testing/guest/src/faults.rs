// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail on purpose, one after the other (`Documentation/fault-injection/` in the
//! kernel's source; `CONFIG_FAILSLAB`, `CONFIG_FAIL_PAGE_ALLOC`).
//!
//! A walk does an operation again and again. The first time its first allocation fails, the second
//! time its second one, and so on, until the operation gets to its end before it is the turn of one
//! to fail. What counts are the allocations that the thread makes below one function of the kernel,
//! whoever makes them: the driver, vfio, the PCI core.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use crate::error::Doing;
use crate::sysfs::write_attribute;
use crate::Error;
use crate::Result;

const DEBUGFS: &str = "/sys/kernel/debug";
const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
const KALLSYMS: &str = "/proc/kallsyms";

/// The kinds of allocations that can be made to fail.
const KINDS: [&str; 2] = ["failslab", "fail_page_alloc"];

/// What is to be set of each kind of allocation: those that may sleep fail as well, and single pages.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("failslab", "ignore-gfp-wait", "N"),
    ("fail_page_alloc", "ignore-gfp-wait", "N"),
    ("fail_page_alloc", "min-order", "0"),
];

/// What the log has of an allocation that fails: nothing, or where it was.
const SILENT: &str = "0";
const VERBOSE: &str = "2";

/// More allocations than any operation makes: a walk that gets here does not come to an end.
const LIMIT: usize = 5000;

/// The calling thread's failing allocation. It has to stay with the thread that made it.
#[derive(Debug)]
pub struct FailNth {
    file: File,
    every: usize,
}

/// An operation whose allocations fail.
pub trait Operation {
    /// The function of the kernel, or of a module that stays loaded, whose allocations fail, and
    /// those of all that it calls.
    fn within(&self) -> &'static str;

    /// One that is called by that, and is left alone together with all that it calls in turn.
    fn spared(&self) -> Option<&'static str> {
        None
    }

    /// The errors that it may be refused with.
    fn refusals(&self) -> &'static [Errno] {
        &[Errno::ENOMEM]
    }

    /// Brings the machine to where the operation can begin.
    fn prepare(&mut self) -> Result<()>;

    /// Does it: the part in which allocations fail.
    fn perform(&mut self) -> Result<()>;

    /// Looks whether everything is as it was before the operation, which returned an error.
    fn undone(&mut self) -> Result<()>;

    /// Looks whether the operation has done what it is for, although an allocation may have failed,
    /// and takes it back.
    fn done(&mut self) -> Result<()>;
}

/// What came of the allocations that failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// How often the operation returned which errno.
    pub refused: BTreeMap<i32, usize>,
    /// How often it did what it is for all the same.
    pub tolerated: usize,
}

impl FailNth {
    /// Has allocations of the calling thread fail, when it is asked for; a walk goes through
    /// `every` so many of them.
    pub fn new(every: usize) -> Result<Self> {
        for (kind, setting, value) in SETTINGS {
            set(kind, setting, value)?;
        }
        say(SILENT)?;
        let file = File::options().read(true).write(true).open(FAIL_NTH);
        let file = file.doing(format!("opening {FAIL_NTH}"))?;
        Ok(FailNth { file, every })
    }

    /// Does `work`, of which allocation number `n` fails; says also whether there was one.
    fn nth<T>(&self, n: usize, work: impl FnOnce() -> T) -> Result<(T, bool)> {
        let write = |n: usize| {
            self.file
                .write_all_at(n.to_string().as_bytes(), 0)
                .doing(format!("writing to {FAIL_NTH}"))
        };
        write(n)?;
        let done = work();
        // On the stack, as an allocation may still be about to fail.
        let mut text = [0; 16];
        let length = self.file.read_at(&mut text, 0);
        write(0)?;
        let length = length.doing(format!("reading {FAIL_NTH}"))?;
        let left = String::from_utf8_lossy(&text[..length]);
        match left.trim().parse::<usize>() {
            Ok(left) => Ok((done, left == 0)),
            Err(_) => Err(Error::new(format!("{FAIL_NTH} has '{left}'"))),
        }
    }

    /// Walks through the allocations of `operation`. The error says at which allocation something
    /// was wrong; the kernel's log says where that was.
    pub fn walk(&self, operation: &mut dyn Operation) -> Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        // First without, so that what is allocated only once, in the process as well, is there.
        operation.prepare()?;
        operation.perform()?;
        operation.done()?;
        confine(operation)?;
        for n in (1..LIMIT).step_by(self.every) {
            match self.step(n, operation, &mut outcomes) {
                Ok(true) => {}
                Ok(false) => return Ok(outcomes),
                Err(e) => {
                    let e = Error::new(format!("when allocation {n} failed: {e}"));
                    self.explain(n, operation)
                        .map_err(|other| Error::new(format!("{e}; once more: {other}")))?;
                    return Err(e);
                }
            }
        }
        Err(Error::new(format!(
            "after {LIMIT} allocations there are still more"
        )))
    }

    /// Does the operation once, with allocation `n` failing; says whether there was one.
    fn step(
        &self,
        n: usize,
        operation: &mut dyn Operation,
        outcomes: &mut Outcomes,
    ) -> Result<bool> {
        operation.prepare()?;
        let (result, failed) = self.nth(n, || operation.perform())?;
        match result {
            Ok(()) => {
                operation.done()?;
                outcomes.tolerated += usize::from(failed);
            }
            Err(e) => {
                let errno = e.errno().map(Errno::from_raw);
                match errno.filter(|errno| failed && operation.refusals().contains(errno)) {
                    Some(errno) => *outcomes.refused.entry(errno as i32).or_default() += 1,
                    None => return Err(e),
                }
                operation.undone()?;
            }
        }
        Ok(failed)
    }

    /// Does it again, for the log to show which allocation it is.
    fn explain(&self, n: usize, operation: &mut dyn Operation) -> Result<()> {
        operation.prepare()?;
        say(VERBOSE)?;
        let done = self.nth(n, || operation.perform());
        say(SILENT)?;
        done.map(|_| ())
    }
}

/// Has only those allocations fail that `operation` is about.
fn confine(operation: &dyn Operation) -> Result<()> {
    let symbols = fs::read_to_string(KALLSYMS).doing(format!("reading {KALLSYMS}"))?;
    let required = Some(place(&symbols, operation.within())?);
    let rejected = operation.spared().map(|spared| place(&symbols, spared));
    for (which, place) in [("require", required), ("reject", rejected.transpose()?)] {
        let (start, end) = place.unwrap_or((0, 0));
        for kind in KINDS {
            set(kind, &format!("{which}-start"), &format!("{start:#x}"))?;
            set(kind, &format!("{which}-end"), &format!("{end:#x}"))?;
        }
    }
    Ok(())
}

/// Where a function begins and ends, according to the content of `/proc/kallsyms`.
fn place(symbols: &str, function: &str) -> Result<(u64, u64)> {
    let start = symbols
        .lines()
        .find(|line| line.split_ascii_whitespace().nth(2) == Some(function))
        .and_then(address)
        .ok_or_else(|| Error::new(format!("{KALLSYMS} has no {function}")))?;
    let end = symbols
        .lines()
        .filter_map(address)
        .filter(|&other| other > start)
        .min()
        .ok_or_else(|| Error::new(format!("{KALLSYMS} ends with {function}")))?;
    Ok((start, end))
}

/// The address of a line of `/proc/kallsyms`.
fn address(line: &str) -> Option<u64> {
    u64::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok()
}

/// Changes a setting of a kind of allocation.
fn set(kind: &str, setting: &str, value: &str) -> Result<()> {
    write_attribute(&Path::new(DEBUGFS).join(kind).join(setting), value)
}

/// Has the kernel say this much of an allocation that fails.
fn say(what: &str) -> Result<()> {
    for kind in KINDS {
        set(kind, "verbose", what)?;
    }
    Ok(())
}

impl Outcomes {
    /// How many allocations failed.
    pub fn failed(&self) -> usize {
        self.refused.values().sum::<usize>() + self.tolerated
    }
}
