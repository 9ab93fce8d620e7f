// SPDX-License-Identifier: GPL-2.0

//! Comparing the recordings of two drivers.
//!
//! If they differ, a second recording of vfio-pci shows which outcomes vary by themselves.

use std::collections::BTreeSet;
use std::fmt;

use crate::meant::{matches, List};
use crate::session::Entry;

/// How much of a text is printed.
const SHOWN: usize = 400;

/// The recordings of the same script.
#[derive(Debug, Default)]
pub struct Runs {
    pub c: Vec<Entry>,
    pub ours: Vec<Entry>,
    /// vfio-pci once more.
    pub again: Option<Vec<Entry>>,
}

#[derive(Debug)]
pub struct Difference {
    call: String,
    c: String,
    other: String,
}

#[derive(Debug, Default)]
pub struct Comparison {
    pub compared: usize,
    /// Calls that succeeded on vfio-pci.
    pub succeeded: usize,
    /// Outcomes that differ on vfio-pci itself.
    pub varying: Vec<Difference>,
    pub meant: usize,
    pub different: Vec<Difference>,
}

impl Runs {
    pub fn compare(&self, meant: &List) -> Comparison {
        let mut comparison = Comparison::default();
        let runs = [&self.c, &self.ours, self.again.as_ref().unwrap_or(&self.c)];
        // Facts go by their names: a driver may have one more. Calls go by their order.
        let names: BTreeSet<&str> =
            runs.iter().flat_map(|run| run.iter().filter_map(|(call, _)| call.as_fact())).collect();
        for name in names {
            let fact = runs.map(|run| run.iter().find(|(call, _)| call.as_fact() == Some(name)));
            comparison.add(fact, meant);
        }
        let mut calls = runs.map(|run| run.iter().filter(|(call, _)| call.as_fact().is_none()));
        loop {
            let call = calls.each_mut().map(Iterator::next);
            if call.iter().all(Option::is_none) {
                break;
            }
            comparison.add(call, meant);
        }
        comparison
    }
}

impl Difference {
    fn new(c: Option<&Entry>, other: Option<&Entry>) -> Self {
        let call =
            |of: Option<&Entry>| of.map_or("no call".into(), |(call, _)| format!("{call:?}"));
        let answer = |of: Option<&Entry>| of.map_or("no call".into(), |(_, is)| format!("{is:?}"));
        // Calls depend on earlier outcomes: the other run may have made another one.
        let same_call = c.map(|(call, _)| call) == other.map(|(call, _)| call);
        let other_answer = match same_call {
            true => answer(other),
            false => format!("{} => {}", call(other), answer(other)),
        };
        Difference { call: call(c.or(other)), c: answer(c), other: other_answer }
    }
}

/// The beginning of a text.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { call, c, other } = self;
        // Where long texts begin to differ.
        let same = c.bytes().zip(other.bytes()).take_while(|(c, other)| c == other).count();
        writeln!(f, "{}\n  vfio-pci: {}\n  other:    {}", short(call), short(c), short(other))?;
        write!(f, "  the same up to character {same}")
    }
}

impl Comparison {
    /// Removes the differences whose text matches. Returns how many there were.
    pub fn take(&mut self, pattern: &str) -> usize {
        let before = self.different.len();
        self.different
            .retain(|of| !matches(pattern, &format!("{}: {} {}", of.call, of.c, of.other)));
        before - self.different.len()
    }

    fn add(&mut self, entry: [Option<&Entry>; 3], meant: &List) {
        let [c, ours, again] = entry;
        if c != again {
            self.varying.push(Difference::new(c, again));
            return;
        }
        self.compared += 1;
        self.succeeded += usize::from(c.is_some_and(|(_, outcome)| outcome.succeeded()));
        if c == ours {
            return;
        }
        let difference = Difference::new(c, ours);
        if meant.has(&difference.call, &difference.c, &difference.other) {
            self.meant += 1;
        } else {
            self.different.push(difference);
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} outcomes compared, {} of success, {} varying, {} meant, {} different",
            self.compared,
            self.succeeded,
            self.varying.len(),
            self.meant,
            self.different.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Outcome, Returned};

    fn run(values: &[i64]) -> Vec<Entry> {
        let entry = |value: &i64| (Call::Signals, Outcome::new(Returned::Value(*value)));
        values.iter().map(entry).collect()
    }

    #[test]
    fn differences_and_variations() {
        let runs =
            Runs { c: run(&[1, 2, 3]), ours: run(&[1, 0, 0, 4]), again: Some(run(&[1, 2, 4])) };
        let comparison = runs.compare(&List::default());
        assert_eq!(comparison.compared, 3);
        assert_eq!(comparison.varying.len(), 1);
        assert_eq!(comparison.different.len(), 2);
        assert_eq!(comparison.different[1].c, "no call");
    }

    #[test]
    fn one_more_fact() {
        let fact = |name: &str| {
            (Call::Fact(name.to_owned()), Outcome::new(Returned::Text("is".to_owned())))
        };
        let runs = Runs {
            c: vec![fact("a"), fact("c")],
            ours: vec![fact("a"), fact("b"), fact("c")],
            again: None,
        };
        let comparison = runs.compare(&List::default());
        assert_eq!(comparison.different.len(), 1);
        assert_eq!(comparison.different[0].call, "Fact(\"b\")");
    }
}
