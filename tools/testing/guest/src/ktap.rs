// SPDX-License-Identifier: GPL-2.0

//! Results in KTAP, one numbered subtest a scenario with its assertions nested in it, and beside
//! them the observations by which two drivers are compared.
//!
//! Results go to the file when a scenario ends; every assertion is also printed at once, so that
//! the console shows how far a run came that did not end.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::Doing;
use crate::Result;

const VERSION: &str = "KTAP version 1";

/// The result file of a run, and the file of its observations.
#[derive(Debug)]
pub struct Report {
    ktap: File,
    observed: File,
    number: usize,
    failed: usize,
}

/// A scenario that is running.
#[derive(Debug, Default)]
pub struct Test {
    lines: Vec<String>,
    assertions: usize,
    failed: usize,
    skipped: usize,
    observed: Vec<(String, String)>,
}

impl Report {
    /// Creates `NAME.ktap` and `NAME.observed` in the results directory for `count` scenarios.
    pub fn create(results: &Path, name: &str, count: usize) -> Result<Self> {
        let create = |extension: &str| {
            let path = results.join(format!("{name}.{extension}"));
            File::create(&path).doing(format!("creating {}", path.display()))
        };
        let mut report = Report {
            ktap: create("ktap")?,
            observed: create("observed")?,
            number: 0,
            failed: 0,
        };
        report.put(&[VERSION.to_owned(), format!("1..{count}")])?;
        Ok(report)
    }

    /// Records a scenario that ran; with `compared`, its observations as well.
    pub fn finish(&mut self, name: &str, scenario: u32, test: Test, compared: bool) -> Result<()> {
        self.number += 1;
        let result = if test.failed > 0 || test.assertions == test.skipped {
            self.failed += 1;
            "not ok"
        } else {
            "ok"
        };
        let mut lines = vec![
            format!("    {VERSION}"),
            format!("    # Subtest: {name}"),
            format!("    1..{}", test.assertions),
        ];
        lines.extend(test.lines.iter().map(|line| format!("    {line}")));
        lines.push(format!("{result} {} {name}", self.number));
        self.put(&lines)?;
        if compared {
            for (key, value) in &test.observed {
                writeln!(self.observed, "{scenario} {key} {value}")
                    .doing("writing the observations")?;
            }
        }
        Ok(())
    }

    /// How many scenarios failed.
    pub fn failed(&self) -> usize {
        self.failed
    }

    fn put(&mut self, lines: &[String]) -> Result<()> {
        for line in lines {
            writeln!(self.ktap, "{line}").doing("writing the KTAP file")?;
        }
        // The machine may be killed at its time limit: what was found by then should be there.
        self.ktap.sync_all().doing("writing the KTAP file")
    }
}

impl Test {
    /// Asserts that `got` is `expected`.
    pub fn eq<T: PartialEq + Display>(&mut self, what: impl Display, expected: T, got: T) -> bool {
        let holds = expected == got;
        self.check(what, holds, || format!("expected {expected} got {got}"));
        holds
    }

    /// Asserts that `holds`; `why_not` is evaluated if it does not.
    pub fn check<D: Display>(
        &mut self,
        what: impl Display,
        holds: bool,
        why_not: impl FnOnce() -> D,
    ) {
        self.assertions += 1;
        if holds {
            self.line(format!("ok {} {what}", self.assertions));
        } else {
            self.failed += 1;
            self.note(why_not());
            self.line(format!("not ok {} {what}", self.assertions));
        }
    }

    /// Counts an assertion that cannot be made here, with the reason.
    pub fn skip(&mut self, what: impl Display, why: impl Display) {
        self.assertions += 1;
        self.skipped += 1;
        self.line(format!("ok {} {what} # SKIP {why}", self.assertions));
    }

    /// Asserts that `result` is not an error; returns what is in it.
    pub fn done<T>(&mut self, what: impl Display, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.check(what, true, || "");
                Some(value)
            }
            Err(e) => {
                self.check(what, false, || e);
                None
            }
        }
    }

    /// Returns whether nothing was asserted yet, nor an assertion skipped.
    pub fn is_empty(&self) -> bool {
        self.assertions == 0
    }

    /// Adds to the output what helps to understand it.
    pub fn note(&mut self, text: impl Display) {
        for line in text.to_string().lines() {
            self.line(format!("# {line}"));
        }
    }

    /// Records what the two drivers must have in common. Keys have no spaces in them.
    pub fn observe(&mut self, key: impl Display, value: impl Display) {
        let key = key.to_string().replace(' ', "_");
        self.observed.push((key, value.to_string()));
    }

    /// Ends with a failure that is no assertion's: an error or a panic.
    pub fn fail(&mut self, why: impl Display) {
        self.check("runs to its end", false, || why);
    }

    fn line(&mut self, line: String) {
        println!("    {line}");
        self.lines.push(line);
    }
}
