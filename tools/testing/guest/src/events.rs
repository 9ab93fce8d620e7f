// SPDX-License-Identifier: GPL-2.0

//! What the kernel's tracer tells of one moment: that a function was called, or what a tracepoint
//! says; with the thread that did it, and when. See [`crate::trace`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Error;
use crate::Result;

/// A line of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Number of the thread.
    pub thread: i32,
    /// By the monotonic clock.
    pub time: Duration,
    /// What it is.
    pub kind: Kind,
}

/// What an [`Event`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A function was called.
    Call {
        /// The function.
        function: String,
        /// The function that called it, or jumped to it.
        caller: String,
    },
    /// A tracepoint was passed.
    Point {
        /// Its name.
        name: String,
        /// What it says, by name.
        fields: BTreeMap<String, String>,
    },
}

impl Event {
    /// Whether `name` was called.
    pub fn calls(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Call { function, .. } if function == name)
    }

    /// The name of the tracepoint; empty, if it is none.
    pub fn point(&self) -> &str {
        match &self.kind {
            Kind::Point { name, .. } => name,
            Kind::Call { .. } => "",
        }
    }

    /// What the tracepoint says by this name; empty, if it says nothing.
    pub fn field(&self, name: &str) -> &str {
        match &self.kind {
            Kind::Point { fields, .. } => fields.get(name).map_or("", String::as_str),
            Kind::Call { .. } => "",
        }
    }
}

/// Parses the tracer's `trace` file; what is in it comes in the order of time.
pub(crate) fn parse(text: &str) -> Result<Vec<Event>> {
    let events = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with(" =>"))
        .filter(|line| !line.trim().is_empty());
    events
        .map(|line| {
            event(line).ok_or_else(|| Error::new(format!("'{line}' is no line of a trace")))
        })
        .collect()
}

/// `NAME-THREAD [CPU] FLAGS SECONDS.MICROSECONDS: WHAT`. The name may have anything in it.
fn event(line: &str) -> Option<Event> {
    let (head, what) = line.split_once(": ")?;
    let (head, time) = head.rsplit_once(' ')?;
    let (task, _) = head.rsplit_once(" [")?;
    let (_, thread) = task.trim_end().rsplit_once('-')?;
    Some(Event {
        thread: thread.parse().ok()?,
        time: seconds(time)?,
        kind: kind(what)?,
    })
}

fn kind(what: &str) -> Option<Kind> {
    if let Some((function, caller)) = what.split_once(" <-") {
        return Some(Kind::Call {
            function: function.trim().to_owned(),
            caller: caller.trim().to_owned(),
        });
    }
    let (name, fields) = what.split_once(':')?;
    let fields = fields
        .split_whitespace()
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(Kind::Point {
        name: name.trim().to_owned(),
        fields: fields.collect(),
    })
}

/// Seconds with a fraction of any length: a float would not be exact.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = fraction.len();
    if digits > 9 {
        return None;
    }
    let nanoseconds: u32 = fraction.parse().ok()?;
    // CAST: At most 9.
    let nanoseconds = nanoseconds * 10_u32.pow(9 - digits as u32);
    Some(Duration::new(whole.parse().ok()?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: function
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
           bench-301     [000] .....    41.000101: vfio_pci_rs_wait: function=0000:01:00.0 scope=bus purpose=open
           bench-301     [000] ...1.    41.000130: vfio_pci_rs_claim: function=0000:01:00.0 scope=bus purpose=open waited_ns=1234
       a-b [c] d-302     [001] .....    41.100000: pcie_flr <-__pci_reset_function_locked
";

    #[test]
    fn calls_and_tracepoints() {
        let events = parse(TRACE).expect("a valid trace");
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].thread, 301);
        assert_eq!(events[0].time, Duration::from_micros(41_000_101));
        let Kind::Point { name, fields } = &events[1].kind else {
            panic!("{:?} is a tracepoint", events[1]);
        };
        assert_eq!(name, "vfio_pci_rs_claim");
        assert_eq!(fields["function"], "0000:01:00.0");
        assert_eq!(fields["purpose"], "open");
        assert_eq!(fields["waited_ns"], "1234");
        assert_eq!(events[1].point(), "vfio_pci_rs_claim");
        assert_eq!(events[1].field("purpose"), "open");
        assert_eq!((events[2].point(), events[1].field("dirty")), ("", ""));
        assert_eq!(events[2].thread, 302);
        assert!(events[2].calls("pcie_flr"));
        assert!(!events[2].calls("pcie"));
    }

    #[test]
    fn what_is_no_event() {
        assert!(parse("pcie_flr <-pcie_reset_flr\n").is_err());
        assert!(parse(" bench-x [000] ..... 1.0: pcie_flr <-pcie_reset_flr\n").is_err());
        assert_eq!(parse("# nothing\n\n").expect("no event"), []);
    }

    #[test]
    fn exact_seconds() {
        assert_eq!(seconds("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(seconds("0.000000001"), Some(Duration::from_nanos(1)));
        assert_eq!(seconds("12"), None);
        assert_eq!(seconds("0.0000000001"), None);
        assert_eq!(seconds("1.x"), None);
    }
}
