// SPDX-License-Identifier: GPL-2.0

//! The input: what `benchmark.json` has in it, and the checks that it is whole.
//!
//! All times are in microseconds unless the name says otherwise. The order of every array is the
//! order in which its members are told.
//!
//! Members that are not known are refused: one with a misspelled name would otherwise be reported
//! as not measured. Whole parts may be absent, of a benchmark that was told to measure less.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;

use crate::Error;
use crate::Result;

/// Everything that a benchmark measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// The day, in UTC.
    pub date: String,
    /// The release of the guest's kernel.
    pub kernel: String,
    /// The model of the guest's processors.
    pub processor: String,
    /// How many processors the guest has.
    pub processors: u32,
    /// How many times everything was measured.
    pub rounds: usize,
    /// First the competitor, then ours, then those that are there for comparison.
    pub drivers: Vec<Driver>,
    /// What was done on several functions at once.
    #[serde(default)]
    pub cases: Vec<Case>,
    /// Calls on one open function.
    #[serde(default)]
    pub data_path: Vec<DataPath>,
    /// Who called the functions of the C core.
    #[serde(default)]
    pub vtable: Vec<VtableEntry>,
    /// What happened when.
    #[serde(default)]
    pub timelines: Vec<Timeline>,
    /// How often a bus was reset when the last of its functions was released.
    #[serde(default)]
    pub rounds_of_bus_reset: Option<BusResets>,
}

/// A driver that was measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// Its name in the results.
    pub name: String,
    /// What it is.
    pub title: String,
}

/// One thing that was done on several functions at once, by one driver after the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A name that no other case has: family, number and operation.
    pub name: String,
    /// The case in words.
    pub title: String,
    /// Cases of the same chart and operation are told together, over their `n`.
    pub chart: String,
    /// What was done.
    pub operation: String,
    /// The number in which the cases of a chart differ.
    pub n: u64,
    /// What `n` is the number of.
    pub x: String,
    /// How many functions took part.
    pub functions: u64,
    /// The rounds of each driver that was measured.
    pub results: BTreeMap<String, Vec<Round>>,
}

/// One round of a case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// From when the first began to when the last was done.
    pub wall: f64,
    /// The longest that one function took.
    pub longest: f64,
    /// The time that all had processors, together.
    pub processor: Option<f64>,
    /// Resets of single functions.
    pub function_resets: Option<u64>,
    /// Resets of buses.
    pub bus_resets: Option<u64>,
    /// Resets that had to be made.
    pub due: Option<u64>,
    /// Those of them that were not made.
    pub lost: Option<u64>,
}

/// A call on one open function.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPath {
    /// The call.
    pub name: String,
    /// How many times it was made in each round.
    pub calls: u64,
    /// Nanoseconds a call, for each driver and round.
    pub results: BTreeMap<String, Vec<f64>>,
}

/// A function of the C core.
#[derive(Debug, Deserialize)]
pub struct VtableEntry {
    /// Its name.
    pub function: String,
    /// Who called it, for each driver.
    #[serde(flatten)]
    pub callers: BTreeMap<String, String>,
}

/// What happened when, in one round on one driver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// Timelines of the same name are drawn in one picture.
    pub name: String,
    /// What was done.
    pub title: String,
    /// On which driver.
    pub driver: String,
    /// How long all of it took.
    pub wall: f64,
    /// The functions.
    pub rows: Vec<Row>,
}

/// What happened on one function.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The function's PCI address.
    pub function: String,
    /// What it was busy with.
    pub spans: Vec<Span>,
}

/// Something that took time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// What it was.
    pub kind: Kind,
    /// When it began, since the first of all began.
    pub start: f64,
    /// When it ended, since the first of all began.
    pub end: f64,
}

/// What a function was busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Kind {
    /// It was being opened.
    #[serde(rename = "opens")]
    Opens,
    /// It was being released.
    #[serde(rename = "releases")]
    Releases,
    /// It was being bound to the driver.
    #[serde(rename = "binds")]
    Binds,
    /// It waited for a lock of the driver.
    #[serde(rename = "waits")]
    Waits,
    /// It was being reset.
    #[serde(rename = "function reset")]
    FunctionReset,
    /// Its bus was being reset.
    #[serde(rename = "bus reset")]
    BusReset,
}

/// How often a bus was reset, in rounds of their own in which all its functions are released.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusResets {
    /// How many rounds.
    pub rounds: usize,
    /// How many functions the bus has.
    pub functions: u64,
    /// The resets in each round, for each driver that was measured.
    pub results: BTreeMap<String, Vec<u64>>,
}

/// The cases that differ in their `n` only.
#[derive(Debug)]
pub struct Group<'a> {
    /// Their chart.
    pub chart: &'a str,
    /// Their operation.
    pub operation: &'a str,
    /// What `n` is the number of.
    pub x: &'a str,
    /// The cases.
    pub cases: Vec<&'a Case>,
}

impl Benchmark {
    /// Parses `benchmark.json`; an error if it is not whole.
    pub fn parse(text: &str) -> Result<Self> {
        let benchmark: Benchmark =
            serde_json::from_str(text).map_err(|e| Error::new(e.to_string()))?;
        benchmark.check()?;
        Ok(benchmark)
    }

    /// The C driver, which ours is compared with.
    pub fn competitor(&self) -> &Driver {
        &self.drivers[0]
    }

    /// Our driver.
    pub fn ours(&self) -> &Driver {
        &self.drivers[1]
    }

    /// The drivers that ours is compared with in `path`: the C driver, and those that show what the
    /// difference comes from.
    pub fn competitors_in<'a>(&'a self, path: &'a DataPath) -> impl Iterator<Item = &'a Driver> {
        let (c, ours) = (&self.competitor().name, &self.ours().name);
        let drivers = self.drivers.iter();
        drivers.filter(move |Driver { name, .. }| {
            name == c || (name != ours && path.results.contains_key(name))
        })
    }

    /// The driver that shows what the benchmark would find if ours had not its locking.
    pub fn comparison(&self) -> Option<&Driver> {
        self.drivers.get(2)
    }

    /// The case of that name.
    pub fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// The cases by chart and operation, in the order in which each first appears.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for case in &self.cases {
            let known = groups
                .iter_mut()
                .find(|group| group.chart == case.chart && group.operation == case.operation);
            match known {
                Some(group) => group.cases.push(case),
                None => groups.push(Group {
                    chart: &case.chart,
                    operation: &case.operation,
                    x: &case.x,
                    cases: vec![case],
                }),
            }
        }
        groups
    }

    fn check(&self) -> Result<()> {
        ensure(self.rounds > 0, || "there are no rounds".to_owned())?;
        ensure(self.drivers.len() >= 2, || {
            "there are not the two drivers that are compared".to_owned()
        })?;
        unique("driver", self.drivers.iter().map(|d| d.name.clone()))?;
        unique("case", self.cases.iter().map(|c| c.name.clone()))?;
        unique("data path", self.data_path.iter().map(|d| d.name.clone()))?;
        unique(
            "timeline",
            self.timelines
                .iter()
                .map(|t| format!("{} of {}", t.name, t.driver)),
        )?;

        for case in &self.cases {
            self.results(&case.name, &case.results, self.rounds)?;
            let times = case.results.values().flatten();
            times_of(&case.name, times.flat_map(|r| [r.wall, r.longest]))?;
        }
        for group in self.groups() {
            let name = format!("{} of chart {}", group.operation, group.chart);
            unique(
                &format!("n, for {name},"),
                group.cases.iter().map(|c| c.n.to_string()),
            )?;
            ensure(group.cases.iter().all(|c| c.x == group.x), || {
                format!("{name}: the x of its cases differ")
            })?;
        }
        for path in &self.data_path {
            self.results(&path.name, &path.results, self.rounds)?;
            times_of(&path.name, path.results.values().flatten().copied())?;
        }
        for entry in &self.vtable {
            self.known(&entry.function, entry.callers.keys())?;
            for driver in [self.competitor(), self.ours()] {
                ensure(entry.callers.contains_key(&driver.name), || {
                    format!("{}: no caller for {}", entry.function, driver.name)
                })?;
            }
        }
        for timeline in &self.timelines {
            self.known(&timeline.name, [&timeline.driver])?;
            let spans = || timeline.rows.iter().flat_map(|row| &row.spans);
            let times = spans().flat_map(|span| [span.start, span.end]);
            times_of(&timeline.name, times.chain([timeline.wall]))?;
            ensure(spans().all(|span| span.start <= span.end), || {
                format!("{}: a span ends before it starts", timeline.name)
            })?;
        }
        if let Some(resets) = &self.rounds_of_bus_reset {
            self.results("rounds_of_bus_reset", &resets.results, resets.rounds)?;
        }
        Ok(())
    }

    fn results<T>(
        &self,
        name: &str,
        results: &BTreeMap<String, Vec<T>>,
        rounds: usize,
    ) -> Result<()> {
        self.known(name, results.keys())?;
        for (driver, of_rounds) in results {
            ensure(of_rounds.len() == rounds, || {
                let len = of_rounds.len();
                format!("{name}: {len} rounds of {driver}, and there are {rounds}")
            })?;
        }
        Ok(())
    }

    fn known<'a>(&self, name: &str, drivers: impl IntoIterator<Item = &'a String>) -> Result<()> {
        for driver in drivers {
            ensure(self.drivers.iter().any(|d| d.name == *driver), || {
                format!("{name}: there is no driver {driver}")
            })?;
        }
        Ok(())
    }
}

impl Driver {
    /// What it is, if the name does not say all of it.
    pub fn explanation(&self) -> Option<&str> {
        Some(self.title.as_str()).filter(|title| *title != self.name)
    }
}

impl Case {
    /// The rounds of `driver`; none if it was not measured.
    pub fn rounds(&self, driver: &Driver) -> Option<&[Round]> {
        self.results.get(&driver.name).map(Vec::as_slice)
    }

    /// The wall times of `driver`, round for round.
    pub fn walls(&self, driver: &Driver) -> Option<Vec<f64>> {
        Some(self.rounds(driver)?.iter().map(|r| r.wall).collect())
    }

    /// What `count` says of the rounds of `driver`; none if it says nothing of one of them.
    pub fn counts(
        &self,
        driver: &Driver,
        count: impl Fn(&Round) -> Option<u64>,
    ) -> Option<Vec<u64>> {
        self.rounds(driver)?.iter().map(count).collect()
    }

    /// How many resets were lost by `driver` in all rounds, of how many that were due.
    pub fn lost(&self, driver: &Driver) -> Option<(u64, u64)> {
        let sum = |count: fn(&Round) -> Option<u64>| Some(self.counts(driver, count)?.iter().sum());
        Some((sum(|round| round.lost)?, sum(|round| round.due)?))
    }
}

fn ensure(holds: bool, why_not: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::new(why_not()))
    }
}

fn unique(what: &str, names: impl Iterator<Item = String>) -> Result<()> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name.clone()) {
            return Err(Error::new(format!("there is more than one {what} {name}")));
        }
    }
    Ok(())
}

fn times_of(name: &str, mut times: impl Iterator<Item = f64>) -> Result<()> {
    ensure(times.all(|time| time >= 0.0), || {
        format!("{name}: there is a negative time")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::Value;

    use super::*;

    fn whole() -> Value {
        json!({
            "date": "2026-11-25", "kernel": "7.3.4", "processor": "p", "processors": 2, "rounds": 1,
            "drivers": [{"name": "vfio-pci", "title": "C"}, {"name": "vfio_pci_rs", "title": "R"}],
            "cases": [{
                "name": "bus-8-open", "title": "t", "chart": "bus", "operation": "open", "n": 8,
                "x": "functions", "functions": 8,
                "results": {"vfio-pci": [{
                    "wall": 10, "longest": 9.5, "processor": 4, "function_resets": 8, "bus_resets": 0, "due": null,
                    "lost": null
                }]}
            }],
            "data_path": [{"name": "config read", "calls": 1, "results": {"vfio-pci": [1000]}}],
            "vtable": [{"function": "f", "vfio-pci": "g", "vfio_pci_rs": "g"}],
            "timelines": [{
                "name": "open-8", "title": "t", "driver": "vfio_pci_rs", "wall": 20,
                "rows": [{"function": "0000:05:00.0", "spans": [
                    {"kind": "function reset", "start": 0, "end": 13}
                ]}]
            }],
            "rounds_of_bus_reset": {"rounds": 2, "functions": 8, "results": {"vfio-pci": [1, 0]}}
        })
    }

    fn refused(change: impl FnOnce(&mut Value)) {
        let mut value = whole();
        change(&mut value);
        let text = value.to_string();
        assert!(Benchmark::parse(&text).is_err(), "taken: {text}");
    }

    #[test]
    fn a_whole_one() {
        let benchmark = Benchmark::parse(&whole().to_string()).expect("it is whole");
        assert_eq!(benchmark.ours().name, "vfio_pci_rs");
        assert!(benchmark.comparison().is_none());
        let case = benchmark.case("bus-8-open").expect("the case");
        assert_eq!(case.walls(benchmark.competitor()), Some(vec![10.0]));
        assert_eq!(case.walls(benchmark.ours()), None);
        assert_eq!(case.lost(benchmark.competitor()), None);
    }

    #[test]
    fn malformed_ones() {
        refused(|v| v["cases"][0]["results"]["vfio-pci"] = json!([]));
        refused(|v| v["cases"][0]["results"]["vfio"] = json!([]));
        refused(|v| v["cases"][0]["results"]["vfio-pci"][0]["wall"] = json!(-1));
        refused(|v| v["cases"][0]["results"]["vfio-pci"][0]["losts"] = json!(1));
        refused(|v| v["cases"] = json!([v["cases"][0], v["cases"][0]]));
        refused(|v| v["rounds"] = json!(0));
        refused(|v| v["drivers"] = json!([v["drivers"][0]]));
        refused(|v| v["data_path"][0]["results"]["vfio-pci"] = json!([1, 2]));
        refused(|v| v["vtable"][0] = json!({"function": "f", "vfio-pci": "g"}));
        refused(|v| v["timelines"][0]["rows"][0]["spans"][0]["kind"] = json!("sleeps"));
        refused(|v| v["timelines"][0]["rows"][0]["spans"][0]["start"] = json!(14));
        refused(|v| v["rounds_of_bus_reset"]["rounds"] = json!(3));
    }

    #[test]
    fn parts_may_be_absent() {
        let mut value = whole();
        let members = value.as_object_mut().expect("an object");
        members.retain(|name, _| {
            ![
                "cases",
                "data_path",
                "vtable",
                "timelines",
                "rounds_of_bus_reset",
            ]
            .contains(&name.as_str())
        });
        assert!(Benchmark::parse(&value.to_string()).is_ok());
    }
}
