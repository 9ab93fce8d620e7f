// SPDX-License-Identifier: GPL-2.0

//! Comparing what was written down on vfio-pci, on vfio_pci_rs, and on vfio-pci again: what is not
//! the same the second time on the same driver says nothing of the other one.

use std::collections::BTreeSet;
use std::fmt;

use crate::meant::List;
use crate::session::Entry;

/// How much of a text is printed.
const SHOWN: usize = 400;

/// The same calls on one driver after the other.
#[derive(Debug, Default)]
pub struct Runs {
    /// On vfio-pci.
    pub c: Vec<Entry>,
    /// On vfio_pci_rs.
    pub ours: Vec<Entry>,
    /// On vfio-pci again.
    pub again: Vec<Entry>,
}

/// A difference.
#[derive(Debug)]
pub struct Difference {
    entry: Option<usize>,
    call: String,
    c: String,
    /// What the other run came to: ours, or vfio-pci's second one.
    other: String,
    at: Option<(usize, Option<u8>, Option<u8>)>,
}

/// What a comparison has come to.
#[derive(Debug, Default)]
pub struct Comparison {
    /// How many calls were made on each driver.
    pub calls: u64,
    /// How many entries were compared.
    pub compared: usize,
    /// The entries that vfio-pci itself answered in two ways.
    pub varying: Vec<Difference>,
    /// How many entries differ as it is meant.
    pub meant: usize,
    /// The entries that differ.
    pub different: Vec<Difference>,
}

impl Runs {
    /// The first, second or third one.
    pub fn run(&mut self, number: usize) -> &mut Vec<Entry> {
        match number {
            0 => &mut self.c,
            1 => &mut self.ours,
            _ => &mut self.again,
        }
    }

    /// Compares them, on the device of this role.
    pub fn compare(&self, device: &str, meant: &List) -> Comparison {
        let mut comparison = Comparison {
            calls: self
                .c
                .iter()
                .map(|(_, outcome)| u64::from(outcome.calls))
                .sum(),
            ..Comparison::default()
        };
        let runs = [&self.c, &self.ours, &self.again];
        // Facts go by their names: one driver may have one more. Calls go by their order.
        let names: BTreeSet<&str> = runs
            .iter()
            .flat_map(|run| run.iter().filter_map(|(call, _)| call.as_fact()))
            .collect();
        for name in names {
            let fact = runs.map(|run| run.iter().find(|(call, _)| call.as_fact() == Some(name)));
            comparison.one(None, fact, device, meant);
        }
        let mut calls = runs.map(|run| run.iter().filter(|(call, _)| call.as_fact().is_none()));
        for entry in 0.. {
            let call = calls.each_mut().map(Iterator::next);
            if call.iter().all(Option::is_none) {
                break;
            }
            comparison.one(Some(entry), call, device, meant);
        }
        comparison
    }
}

impl Difference {
    fn new(entry: Option<usize>, c: Option<&Entry>, other: Option<&Entry>) -> Self {
        let call =
            |of: Option<&Entry>| of.map_or("nothing".to_owned(), |(call, _)| call.to_string());
        let answer = |of: Option<&Entry>| {
            of.map_or("no call".to_owned(), |(_, outcome)| outcome.to_string())
        };
        // Scripts go by what they are answered: one may end up with another call.
        let same_call = c.map(|(call, _)| call) == other.map(|(call, _)| call);
        let at = c.zip(other);
        let at = at.and_then(|((_, c), (_, other))| c.differs_at(other));
        Difference {
            entry,
            at,
            call: call(c.or(other)),
            c: answer(c),
            other: match same_call {
                true => answer(other),
                false => format!("{} => {}", call(other), answer(other)),
            },
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            entry,
            call,
            c,
            other,
            at,
        } = self;
        let short = |text: &str| -> String {
            match text.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("{} ...", &text[..end]),
                None => text.to_owned(),
            }
        };
        match entry {
            Some(entry) => writeln!(f, "entry {entry}: {}", short(call))?,
            None => writeln!(f, "{}", short(call))?,
        }
        writeln!(f, "    vfio-pci: {}", short(c))?;
        write!(f, "    other:    {}", short(other))?;
        if let Some((offset, one, other)) = at {
            let byte =
                |byte: &Option<u8>| byte.map_or("as it was".to_owned(), |b| format!("{b:02x}"));
            write!(
                f,
                "\n    first at +{offset:#x}: {}, {}",
                byte(one),
                byte(other)
            )?;
        }
        Ok(())
    }
}

impl Comparison {
    /// Compares one entry.
    fn one(
        &mut self,
        entry: Option<usize>,
        [c, ours, again]: [Option<&Entry>; 3],
        device: &str,
        meant: &List,
    ) {
        if c != again {
            self.varying.push(Difference::new(entry, c, again));
            return;
        }
        self.compared += 1;
        if c == ours {
            return;
        }
        let difference = Difference::new(entry, c, ours);
        let Difference { call, c, other, .. } = &difference;
        if meant.has(device, call, c, other) {
            self.meant += 1;
        } else {
            self.different.push(difference);
        }
    }

    /// Adds another one's numbers.
    pub fn add(&mut self, other: Comparison) {
        self.calls += other.calls;
        self.compared += other.compared;
        self.meant += other.meant;
        self.varying.extend(other.varying);
        self.different.extend(other.different);
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls on each driver, {} answers compared, {} varying, {} meant, {} different",
            self.calls,
            self.compared,
            self.varying.len(),
            self.meant,
            self.different.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::call::Outcome;
    use crate::call::Returned;

    fn run(values: &[i64]) -> Vec<Entry> {
        let entry = |value: &i64| (Call::Signals, Outcome::new(Returned::Value(*value)));
        values.iter().map(entry).collect()
    }

    #[test]
    fn differences_and_what_varies() {
        let runs = Runs {
            c: run(&[1, 2, 3]),
            ours: run(&[1, 0, 0, 4]),
            again: run(&[1, 2, 4]),
        };
        let comparison = runs.compare("igb", &List::default());
        assert_eq!(comparison.compared, 3);
        assert_eq!(comparison.varying.len(), 1);
        assert_eq!(comparison.different.len(), 2);
        assert_eq!(comparison.different[1].c, "no call");
    }

    #[test]
    fn one_more_fact() {
        let fact = |name: &str| {
            let outcome = Outcome::new(Returned::Text("is".to_owned()));
            (Call::Fact(name.to_owned()), outcome)
        };
        let runs = Runs {
            c: vec![fact("a"), fact("c")],
            ours: vec![fact("a"), fact("b"), fact("c")],
            again: vec![fact("a"), fact("c")],
        };
        let comparison = runs.compare("igb", &List::default());
        assert_eq!(comparison.different.len(), 1);
        assert_eq!(comparison.different[0].call, "b");
    }
}
