// SPDX-License-Identifier: GPL-2.0

//! The results: `benchmark.json`, and a table for whoever watches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::json;
use serde_json::Value;

use crate::bench::drivers::Competitor;
use crate::bench::measure::Resets;
use crate::bench::measure::Sample;
use crate::error::Doing;
use crate::Error;
use crate::Result;

/// The file.
const FILE: &str = "benchmark.json";

/// What is measured, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening functions.
    Open,
    /// Releasing them.
    Release,
    /// Releasing some while others are opened.
    Mixed,
    /// Resetting their bus while they are open.
    HotReset,
    /// Binding them.
    Probe,
    /// What the kernel's selftest measures.
    Selftest,
}

/// What is measured once a round and driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Unique.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// The chart that it is part of.
    pub chart: &'static str,
    /// What is done.
    pub operation: Operation,
    /// The number that the chart shows it at.
    pub n: usize,
    /// What is counted by that.
    pub x: &'static str,
    /// How many functions took part.
    pub functions: usize,
}

/// How long a call takes.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The call.
    pub name: &'static str,
    /// How often it was made for that.
    pub calls: usize,
    /// Nanoseconds in each round, by driver.
    pub results: Results<u64>,
}

/// What a row of a timeline is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// What the function is doing.
    pub kind: &'static str,
    /// Since the first one began.
    pub start: Duration,
    /// The same.
    pub end: Duration,
}

/// What happened to some functions at once, and when.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Unique among those of a driver.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// The driver.
    pub driver: &'static str,
    /// How long it took.
    pub wall: Duration,
    /// Addresses of functions, and what happened to each.
    pub rows: Vec<(String, Vec<Stretch>)>,
}

/// How many bus resets there were, of which there had to be one a round.
#[derive(Debug, Clone, Default)]
pub struct BusResets {
    /// How many functions shared each.
    pub functions: usize,
    /// In each round, by driver.
    pub results: Results<usize>,
}

/// What each driver gave, in each round.
pub type Results<T> = BTreeMap<&'static str, Vec<T>>;

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    cases: Vec<(Case, Results<Sample>)>,
    /// How long calls take.
    pub data_path: Vec<Calls>,
    /// Functions of vfio-pci-core, and by driver what they are called by.
    pub vtable: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// What happened, and when.
    pub timelines: Vec<Timeline>,
    /// Whether bus resets are counted right.
    pub bus_resets: Option<BusResets>,
}

impl Operation {
    /// Its name in the results.
    fn name(self) -> &'static str {
        match self {
            Operation::Open => "open",
            Operation::Release => "release",
            Operation::Mixed => "mixed",
            Operation::HotReset => "hot reset",
            Operation::Probe => "probe",
            Operation::Selftest => "kernel selftest",
        }
    }

    /// The last part of a case's name.
    pub fn suffix(self) -> String {
        self.name().replace(' ', "-")
    }
}

impl Report {
    /// Adds what `driver` gave in one more round of `case`.
    pub fn add(&mut self, case: Case, driver: &'static str, sample: Sample) {
        let found = self.cases.iter_mut().find(|(c, _)| c.name == case.name);
        let results = match found {
            Some((_, results)) => results,
            None => {
                // Cases of one operation stay together, those that have more functions last; and
                // charts in the order in which they come.
                let at = self
                    .cases
                    .iter()
                    .rposition(|(c, _)| c.chart != case.chart || c.operation <= case.operation)
                    .map_or(0, |i| i + 1);
                self.cases.insert(at, (case, Results::new()));
                &mut self.cases[at].1
            }
        };
        results.entry(driver).or_default().push(sample);
    }

    /// Writes the file.
    pub fn write(&self, directory: &Path, rounds: usize, drivers: &[Competitor]) -> Result<()> {
        let path = directory.join(FILE);
        let value = self.json(&Machine::read()?, rounds, drivers);
        let mut text = serde_json::to_string_pretty(&value)
            .map_err(|e| Error::new(format!("formatting {}: {e}", path.display())))?;
        text.push('\n');
        fs::write(&path, text).doing(format!("writing {}", path.display()))
    }

    fn json(&self, machine: &Machine, rounds: usize, drivers: &[Competitor]) -> Value {
        let drivers: Vec<Value> = drivers
            .iter()
            .map(|driver| json!({"name": driver.name, "title": driver.title}))
            .collect();
        let cases: Vec<Value> = self.cases.iter().map(case_json).collect();
        let data_path: Vec<Value> = self
            .data_path
            .iter()
            .map(|c| json!({"name": c.name, "calls": c.calls, "results": c.results}))
            .collect();
        let vtable: Vec<Value> = self.vtable.iter().map(vtable_json).collect();
        let timelines: Vec<Value> = self.timelines.iter().map(timeline_json).collect();
        json!({
            "date": machine.date,
            "kernel": machine.kernel,
            "processor": machine.processor,
            "processors": machine.processors,
            "rounds": rounds,
            "drivers": drivers,
            "cases": cases,
            "data_path": data_path,
            "vtable": vtable,
            "timelines": timelines,
            "rounds_of_bus_reset": self.bus_resets.as_ref().map(bus_resets_json),
        })
    }

    /// A line a case: the median of all rounds, and in brackets how many resets were lost in them.
    pub fn table(&self, drivers: &[Competitor]) -> String {
        let mut table = format!("{:26}", "ms (resets lost)");
        for driver in drivers {
            let _ = write!(table, "{:>20}", driver.name);
        }
        table.push('\n');
        for (case, results) in &self.cases {
            let _ = write!(table, "{:26}", case.name);
            for driver in drivers {
                let cell = results
                    .get(driver.name)
                    .map_or_else(String::new, |s| cell(s));
                let _ = write!(table, "{cell:>20}");
            }
            table.push('\n');
        }
        for calls in &self.data_path {
            let _ = write!(table, "{:26}", format!("{} (ns)", calls.name));
            for driver in drivers {
                let nanoseconds = calls
                    .results
                    .get(driver.name)
                    .and_then(|r| median(r.clone()));
                let cell = nanoseconds.map_or_else(String::new, |n| n.to_string());
                let _ = write!(table, "{cell:>20}");
            }
            table.push('\n');
        }
        if let Some(counted) = &self.bus_resets {
            for (driver, counts) in &counted.results {
                let one = counts.iter().filter(|&&count| count == 1).count();
                let rounds = counts.len();
                let _ = writeln!(table, "{driver}: one bus reset in {one} of {rounds} rounds");
            }
        }
        for (function, callers) in &self.vtable {
            let _ = writeln!(table, "{function} is called by {callers:?}");
        }
        table
    }
}

fn cell(samples: &[Sample]) -> String {
    let wall = median(samples.iter().map(|s| s.wall).collect()).unwrap_or_default();
    let ms = wall.as_secs_f64() * 1000.0;
    match samples.iter().filter_map(Sample::lost).sum::<usize>() {
        0 => format!("{ms:.1}      "),
        lost => format!("{ms:.1} {:>5}", format!("({lost})")),
    }
}

/// The value in the middle, if there are any.
pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// CAST: No time here is anywhere near half a million years.
fn microseconds(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn case_json((case, results): &(Case, Results<Sample>)) -> Value {
    let results: BTreeMap<&str, Vec<Value>> = results
        .iter()
        .map(|(driver, samples)| (*driver, samples.iter().map(sample_json).collect()))
        .collect();
    json!({
        "name": case.name,
        "title": case.title,
        "chart": case.chart,
        "operation": case.operation.name(),
        "n": case.n,
        "x": case.x,
        "functions": case.functions,
        "results": results,
    })
}

fn sample_json(sample: &Sample) -> Value {
    json!({
        "wall": microseconds(sample.wall),
        "longest": microseconds(sample.longest),
        "processor": sample.processor.map(microseconds),
        "function_resets": sample.resets.map(|resets| resets.function),
        "bus_resets": sample.resets.map(|resets| resets.bus),
        "due": sample.due.map(Resets::count),
        "lost": sample.lost(),
    })
}

fn vtable_json((function, callers): (&&str, &BTreeMap<&str, String>)) -> Value {
    let mut object = json!({"function": function});
    for (driver, caller) in callers {
        object[*driver] = json!(caller);
    }
    object
}

fn timeline_json(timeline: &Timeline) -> Value {
    let rows: Vec<Value> = timeline
        .rows
        .iter()
        .map(|(function, spans)| {
            let spans: Vec<Value> = spans
                .iter()
                .map(|span| {
                    json!({
                        "kind": span.kind,
                        "start": microseconds(span.start),
                        "end": microseconds(span.end),
                    })
                })
                .collect();
            json!({"function": function, "spans": spans})
        })
        .collect();
    json!({
        "name": timeline.name,
        "title": timeline.title,
        "driver": timeline.driver,
        "wall": microseconds(timeline.wall),
        "rows": rows,
    })
}

fn bus_resets_json(counted: &BusResets) -> Value {
    json!({
        "rounds": counted.results.values().map(Vec::len).max().unwrap_or(0),
        "functions": counted.functions,
        "results": counted.results,
    })
}

/// Where and when it was measured.
struct Machine {
    date: String,
    kernel: String,
    processor: String,
    processors: usize,
}

impl Machine {
    fn read() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).doing(format!("reading {path}"));
        let (processor, processors) = processors(&read("/proc/cpuinfo")?)?;
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::new("the clock is before 1970"))?;
        Ok(Machine {
            date: date(since.as_secs() / (24 * 60 * 60)),
            kernel: read("/proc/sys/kernel/osrelease")?.trim_end().to_owned(),
            processor,
            processors,
        })
    }
}

/// What the processors are called in `/proc/cpuinfo`, and how many there are.
fn processors(text: &str) -> Result<(String, usize)> {
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim_end() == "model name")
        .map(|(_, name)| name.trim())
        .collect();
    let name = names
        .first()
        .ok_or_else(|| Error::new("/proc/cpuinfo has no line 'model name'"))?;
    Ok(((*name).to_owned(), names.len()))
}

/// The day so many days after 1970-01-01.
fn date(mut days: u64) -> String {
    let leap = |year: u64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(20_453), "2025-12-31");
        assert_eq!(date(20_454), "2026-01-01");
    }

    #[test]
    fn names_of_processors() {
        let text = "processor\t: 0\nmodel name\t: A: B\n\nprocessor\t: 1\nmodel name\t: A: B\n";
        assert_eq!(processors(text).expect("two"), ("A: B".to_owned(), 2));
        assert!(processors("processor: 0\n").is_err());
    }

    fn case(chart: &'static str, operation: Operation, n: usize) -> Case {
        Case {
            name: format!("{chart}-{n}-{}", operation.suffix()),
            title: "a case".to_owned(),
            chart,
            operation,
            n,
            x: "functions",
            functions: n,
        }
    }

    #[test]
    fn cases_in_the_order_of_their_charts() {
        let sample = Sample {
            wall: Duration::from_micros(1500),
            longest: Duration::from_micros(700),
            processor: Some(Duration::from_micros(900)),
            resets: Some(Resets {
                function: 2,
                bus: 0,
            }),
            due: Some(Resets {
                function: 2,
                bus: 1,
            }),
        };
        let mut report = Report::default();
        for chart in ["bus", "buses"] {
            for n in [1, 2] {
                report.add(case(chart, Operation::Open, n), "a", sample);
                report.add(case(chart, Operation::HotReset, n), "a", sample);
            }
        }
        report.add(case("bus", Operation::Open, 2), "a", sample);
        report.add(case("bus", Operation::Open, 2), "b", sample);
        let machine = Machine {
            date: date(0),
            kernel: "7.3.4".to_owned(),
            processor: "none".to_owned(),
            processors: 2,
        };
        let value = report.json(&machine, 5, &[]);
        let cases = value["cases"].as_array().expect("an array");
        let names: Vec<&str> = cases.iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(
            names,
            [
                "bus-1-open",
                "bus-2-open",
                "bus-1-hot-reset",
                "bus-2-hot-reset",
                "buses-1-open",
                "buses-2-open",
                "buses-1-hot-reset",
                "buses-2-hot-reset"
            ]
        );
        assert_eq!(cases[1]["results"]["a"].as_array().map(Vec::len), Some(2));
        assert_eq!(cases[2]["operation"], "hot reset");
        let sample = &cases[1]["results"]["b"][0];
        assert_eq!(sample["wall"], 1500);
        assert_eq!(sample["processor"], 900);
        assert_eq!(sample["function_resets"], 2);
        assert_eq!(sample["due"], 3);
        assert_eq!(sample["lost"], 1);
        assert!(value["rounds_of_bus_reset"].is_null());
    }
}
