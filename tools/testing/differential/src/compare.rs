// SPDX-License-Identifier: GPL-2.0

//! Comparing the recordings of two drivers.

use std::collections::BTreeSet;
use std::fmt;

use crate::meant::List;
use crate::session::Entry;

/// The recordings of the same script.
#[derive(Debug, Default)]
pub struct Runs {
    pub c: Vec<Entry>,
    pub ours: Vec<Entry>,
}

#[derive(Debug, Default)]
pub struct Comparison {
    pub compared: usize,
    /// Calls that succeeded on vfio-pci.
    succeeded: usize,
    meant: usize,
    pub different: Vec<String>,
}

impl Runs {
    /// Compares the recordings of a script.
    pub fn compare(&self, script: &str, meant: &List) -> Comparison {
        let mut comparison = Comparison::default();
        let runs = [&self.c, &self.ours];
        // Facts go by their names: a driver may have one more. Calls go by their order.
        let names: BTreeSet<&str> =
            runs.iter().flat_map(|run| run.iter().filter_map(|(call, _)| call.as_fact())).collect();
        for name in names {
            let fact = runs.map(|run| run.iter().find(|(call, _)| call.as_fact() == Some(name)));
            comparison.add(fact, script, meant);
        }
        let mut calls = runs.map(|run| run.iter().filter(|(call, _)| call.as_fact().is_none()));
        loop {
            let call = calls.each_mut().map(Iterator::next);
            if call.iter().all(Option::is_none) {
                return comparison;
            }
            comparison.add(call, script, meant);
        }
    }
}

/// Describes a difference.
fn describe(script: &str, c: Option<&Entry>, other: Option<&Entry>) -> String {
    let call = |of: Option<&Entry>| of.map_or("no call".into(), |(call, _)| format!("{call:?}"));
    let answer = |of: Option<&Entry>| of.map_or("no call".into(), |(_, is)| format!("{is:?}"));
    // Calls depend on earlier outcomes: the other run may have made another one.
    let other_call = match c.map(|(call, _)| call) == other.map(|(call, _)| call) {
        true => String::new(),
        false => format!("{} => ", call(other)),
    };
    format!("{script} {}: {} {other_call}{}", call(c.or(other)), answer(c), answer(other))
}

impl Comparison {
    fn add(&mut self, [c, ours]: [Option<&Entry>; 2], script: &str, meant: &List) {
        self.compared += 1;
        self.succeeded += usize::from(c.is_some_and(|(_, outcome)| outcome.succeeded()));
        if c == ours {
            return;
        }
        let difference = describe(script, c, ours);
        match meant.has(&difference) {
            true => self.meant += 1,
            false => self.different.push(difference),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { compared, succeeded, meant, different } = self;
        let different = different.len();
        write!(f, "{compared} outcomes compared, {succeeded} of success, ")?;
        write!(f, "{meant} meant, {different} different")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Outcome, Returned};

    fn entry(call: Call, text: &str) -> Entry {
        (call, Outcome::new(Returned::Text(text.to_owned())))
    }

    #[test]
    fn differences() {
        let run = |texts: &[&str]| texts.iter().map(|text| entry(Call::Log, text)).collect();
        let runs = Runs { c: run(&["a", "b"]), ours: run(&["a", "x", "d"]) };
        let comparison = runs.compare("fixed", &List::default());
        assert_eq!(comparison.compared, 3);
        let last = "fixed Log: no call Log => Text(\"d\")";
        assert_eq!(comparison.different, ["fixed Log: Text(\"b\") Text(\"x\")", last]);
    }

    #[test]
    fn one_more_fact() {
        let run = |names: &[&str]| {
            names.iter().map(|name| entry(Call::Fact((*name).to_owned()), "is")).collect()
        };
        let runs = Runs { c: run(&["a", "c"]), ours: run(&["a", "b", "c"]) };
        let different = runs.compare("drivers", &List::default()).different;
        assert_eq!(different.len(), 1);
        assert!(different[0].starts_with("drivers Fact(\"b\"): no call "));
    }
}
