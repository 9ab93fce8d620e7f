// SPDX-License-Identifier: GPL-2.0

//! The results of a program, as `NAME.events.jsonl`: one JSON object a line, each written at once.
//!
//! The first line is `{"event": "plan", "tests": [...]}`. All others have the key `test`, and by
//! `event`:
//!
//! - `start`
//! - `check`: `what`, `ok`, and `why` if it is not
//! - `skip`: `what`, `why`
//! - `note`: `text`
//! - `observe`: `key`, `value`, and whether the values of all drivers must be the same (`compared`)
//! - `end`: `seconds`. A planned test without this has failed.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{json, Value};

/// The file of a program's results.
#[derive(Debug)]
pub struct Report {
    file: File,
    failed: usize,
}

/// A test that is running.
#[derive(Debug)]
pub struct Test<'a> {
    name: String,
    compared: bool,
    file: &'a mut File,
    checks: usize,
    failed: usize,
}

impl Report {
    /// Creates the file, and writes the plan.
    pub fn create<S: AsRef<str>>(results: &Path, name: &str, tests: &[S]) -> Result<Self> {
        let path = results.join(format!("{name}.events.jsonl"));
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        let tests: Vec<&str> = tests.iter().map(AsRef::as_ref).collect();
        write(&mut file, &json!({ "event": "plan", "tests": tests }));
        Ok(Report { file, failed: 0 })
    }

    /// Runs a test, whose observations must be the same for all drivers if `compared`. An error
    /// or a panic in it is a failure, and so is a test that checks nothing.
    pub fn run(
        &mut self,
        name: &str,
        compared: bool,
        body: impl FnOnce(&mut Test<'_>) -> Result<()>,
    ) {
        println!("# {name}");
        let start = Instant::now();
        let mut test =
            Test { name: name.to_owned(), compared, file: &mut self.file, checks: 0, failed: 0 };
        test.event("start", json!({}));
        test.complete("runs to its end", body);
        if test.checks == 0 {
            test.check("checks something", false, || "there is no check");
        }
        let seconds = start.elapsed().as_secs_f64();
        test.event("end", json!({ "seconds": seconds }));
        println!("# {name} took {seconds:.1} s");
        self.failed += usize::from(test.failed > 0);
    }

    /// Returns the program's exit code: whether a test has failed.
    pub fn exit_code(&self) -> ExitCode {
        match self.failed {
            0 => ExitCode::SUCCESS,
            failed => {
                eprintln!("{failed} tests failed");
                ExitCode::FAILURE
            }
        }
    }
}

impl Test<'_> {
    /// Checks that `got` is `expected`.
    pub fn eq<T: PartialEq + Display>(&mut self, what: impl Display, expected: T, got: T) -> bool {
        let holds = expected == got;
        self.check(what, holds, || format!("expected {expected} got {got}"));
        holds
    }

    /// Checks that `got` is `expected`, and observes it.
    pub fn seen<T: PartialEq + Display>(&mut self, what: impl Display, expected: T, got: T) {
        self.observe(&what, &got);
        self.eq(what, expected, got);
    }

    pub fn is(&mut self, what: impl Display, expected: &str, got: impl AsRef<str>) {
        self.eq(what, expected, got.as_ref());
    }

    /// Checks that `holds`, if its name says all.
    pub fn holds(&mut self, what: impl Display, holds: bool) {
        self.check(what, holds, || "it does not hold");
    }

    /// Checks that `holds`; otherwise evaluates `why`.
    pub fn check<D: Display>(&mut self, what: impl Display, holds: bool, why: impl FnOnce() -> D) {
        self.checks += 1;
        if holds {
            println!("    ok {what}");
            self.event("check", json!({ "what": what.to_string(), "ok": true }));
            return;
        }
        self.failed += 1;
        let why = why().to_string();
        println!("    not ok {what}: {why}");
        let event = json!({ "what": what.to_string(), "ok": false, "why": why });
        self.event("check", event);
    }

    /// Notes a check that cannot be made here.
    pub fn skip(&mut self, what: impl Display, why: impl Display) {
        self.checks += 1;
        println!("    skipped {what}: {why}");
        let event = json!({ "what": what.to_string(), "why": why.to_string() });
        self.event("skip", event);
    }

    /// Checks that `result` is not an error. Returns its value.
    pub fn done<T>(&mut self, what: impl Display, result: Result<T>) -> Option<T> {
        let why = result.as_ref().err().map(|e| format!("{e:#}"));
        self.check(what, why.is_none(), || why.unwrap_or_default());
        result.ok()
    }

    /// Runs a part of the test. Only an error or a panic is a check, which fails.
    pub fn complete(&mut self, what: &str, body: impl FnOnce(&mut Self) -> Result<()>) {
        match catch_unwind(AssertUnwindSafe(|| body(self))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.check(what, false, || format!("{e:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                self.check(what, false, || format!("panicked: {}", text.unwrap_or("?")));
            }
        }
    }

    /// Adds text that helps to understand a result.
    pub fn note(&mut self, text: impl Display) {
        println!("    # {text}");
        self.event("note", json!({ "text": text.to_string() }));
    }

    /// Records a value that drivers may have in common.
    pub fn observe(&mut self, key: impl Display, value: impl Display) {
        let (key, value) = (key.to_string(), value.to_string());
        let event = json!({ "key": key, "value": value, "compared": self.compared });
        self.event("observe", event);
    }

    fn event(&mut self, event: &str, mut fields: Value) {
        fields["test"] = json!(self.name);
        fields["event"] = json!(event);
        write(self.file, &fields);
    }
}

/// Writes a line. The machine may be killed at its time limit, so nothing may be buffered.
fn write(file: &mut File, value: &Value) {
    let written = file.write_all(format!("{value}\n").as_bytes());
    written.expect("the results can be written");
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn events_of_a_program() {
        let results = std::env::temp_dir();
        let name = format!("report.{}", std::process::id());
        let tests = ["good", "bad", "panics", "empty"];
        let mut report = Report::create(&results, &name, &tests).expect("a file");
        report.run("good", true, |t| {
            t.seen("one", 1, 1);
            t.skip("two", "not here");
            Ok(())
        });
        report.run("bad", false, |_| bail!("outer"));
        report.run("panics", false, |_| panic!("inner"));
        report.run("empty", false, |_| Ok(()));
        assert_eq!(report.failed, 3);

        let path = results.join(format!("{name}.events.jsonl"));
        let text = std::fs::read_to_string(&path).expect("the file");
        std::fs::remove_file(&path).expect("the file is there");
        let events: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(events[0], json!({ "event": "plan", "tests": tests }));
        let observed = json!({ "test": "good", "event": "observe", "key": "one", "value": "1",
            "compared": true });
        assert_eq!(events[2], observed);
        let failures: Vec<&Value> = events.iter().filter(|e| e["ok"] == false).collect();
        assert_eq!(failures[0]["why"], "outer");
        assert_eq!(failures[1]["why"], "panicked: inner");
        assert_eq!(failures.len(), 3);
        assert_eq!(events.iter().filter(|e| e["event"] == "end").count(), 4);
    }
}
