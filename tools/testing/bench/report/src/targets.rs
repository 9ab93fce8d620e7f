// SPDX-License-Identifier: GPL-2.0

//! What the driver is meant to reach, and whether it did.
//!
//! Nothing fails because of it: the figures depend on the machine, and a person has to judge them.

use std::fmt;

use crate::figures;
use crate::model::Benchmark;
use crate::model::Case;
use crate::model::DataPath;
use crate::model::Driver;
use crate::model::Round;
use crate::statistics::Difference;
use crate::statistics::Ratio;
use crate::statistics::Summary;

/// The calls of the data path may take longer by this part of the competitor's, even if they do in
/// all rounds: those of one boot tell too little of the noise.
const DATA_PATH_NOISE: f64 = 0.02;

/// The time for each function may grow by this part from the first to any later case.
const SCALE_GROWTH: f64 = 0.10;
const SCALE_FIRST: u64 = 8;
const SCALE_LAST: u64 = 64;

/// Something that the driver is meant to reach.
#[derive(Debug)]
pub struct Target {
    /// What is measured, in Markdown.
    pub what: String,
    /// What it should be.
    pub limit: String,
    /// What it is; none if it was not measured.
    pub outcome: Option<Outcome>,
}

/// What came of a target.
#[derive(Debug)]
pub struct Outcome {
    /// The figure, in Markdown.
    pub figure: String,
    /// Whether it is within the limit.
    pub met: bool,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// The wall times of a driver in a case.
#[derive(Debug, Clone, Copy)]
struct Wall<'a>(&'a str, &'a Driver);

/// All targets, in the order in which they are told.
pub fn targets(benchmark: &Benchmark) -> Vec<Target> {
    let c = benchmark.competitor();
    let ours = benchmark.ours();
    let comparison = benchmark.comparison();
    let ratio = |what, numerator, limit, denominator| {
        of_ratio(benchmark, what, numerator, limit, denominator)
    };
    let mut targets = vec![
        ratio(
            "8 functions of one bus opened together",
            Wall("bus-8-open", c),
            Limit::AtLeast(5.0),
            Wall("bus-8-open", ours),
        ),
        ratio(
            "8 functions of one bus opened together, and one",
            Wall("bus-8-open", ours),
            Limit::AtMost(1.5),
            Wall("bus-1-open", ours),
        ),
        ratio(
            "8 functions of one bus released together, and one",
            Wall("bus-8-release", ours),
            Limit::AtMost(2.0),
            Wall("bus-1-release", ours),
        ),
        every_release_resets(benchmark, "bus-8-release"),
        ratio(
            "The kernel's own vfio_pci_device_init_perf_test on 8 functions",
            Wall("selftest-8", c),
            Limit::AtLeast(5.0),
            Wall("selftest-8", ours),
        ),
        ratio(
            "16 functions of 16 buses opened together",
            Wall("buses-16-open", ours),
            Limit::AtMost(1.05),
            Wall("buses-16-open", c),
        ),
    ];
    // Without the third driver these are targets all the same, which were not measured.
    let absent = Driver {
        name: "global mutex".to_owned(),
        title: String::new(),
    };
    for driver in [c, ours] {
        targets.push(ratio(
            "16 functions of 16 buses opened together",
            Wall("buses-16-open", comparison.unwrap_or(&absent)),
            Limit::AtLeast(8.0),
            Wall("buses-16-open", driver),
        ));
    }
    targets.push(ratio(
        "7 virtual functions opened together",
        Wall("vfs-7-open", ours),
        Limit::AtMost(1.05),
        Wall("vfs-7-open", c),
    ));
    targets.push(none_is_lost(benchmark, "vfs-7-release"));
    targets.push(one_bus_reset(benchmark));
    if benchmark.data_path.is_empty() {
        targets.push(Target {
            what: format!("Data path: `{}` beside `{}`", ours.name, c.name),
            limit: "within the noise".to_owned(),
            outcome: None,
        });
    }
    let data_path = benchmark.data_path.iter();
    targets.extend(data_path.flat_map(|path| {
        let competitors = benchmark.competitors_in(path);
        competitors.map(|c| within_noise(benchmark, path, c))
    }));
    targets.push(same_callers(benchmark));
    targets.push(scale(benchmark));
    targets
}

fn of_ratio(
    benchmark: &Benchmark,
    what: &str,
    numerator: Wall<'_>,
    limit: Limit,
    denominator: Wall<'_>,
) -> Target {
    let outcome = || {
        let ratio = Ratio::of(&numerator.times(benchmark)?, &denominator.times(benchmark)?)?;
        Some(Outcome {
            figure: figures::ratio(ratio, 3),
            met: limit.met(ratio.of_medians),
        })
    };
    let of = if numerator.0 == denominator.0 {
        let (a, b) = (&numerator.1.name, &denominator.1.name);
        format!("`{}`: `{a}` / `{b}`", numerator.0)
    } else {
        let driver = &numerator.1.name;
        format!("`{}` / `{}`: `{driver}`", numerator.0, denominator.0)
    };
    Target {
        what: format!("{what}: wall time, {of}"),
        limit: limit.to_string(),
        outcome: outcome(),
    }
}

fn every_release_resets(benchmark: &Benchmark, name: &str) -> Target {
    let case = benchmark.case(name);
    let resets = |driver| case?.counts(driver, |round: &Round| round.function_resets);
    let outcome = || {
        let releases = case?.functions;
        let ours = resets(benchmark.ours())?;
        let c = resets(benchmark.competitor()).unwrap_or_default();
        Some(Outcome {
            figure: beside(benchmark, figures::counts(&ours), figures::counts(&c)),
            met: ours.iter().all(|count| *count == releases),
        })
    };
    let limit = match case {
        Some(case) => format!("= {} in every round", case.functions),
        None => "= releases in every round".to_owned(),
    };
    Target {
        what: format!(
            "8 functions of one bus released together: function resets, `{name}`: `{}`",
            benchmark.ours().name
        ),
        limit,
        outcome: outcome(),
    }
}

fn none_is_lost(benchmark: &Benchmark, name: &str) -> Target {
    let case = benchmark.case(name);
    let lost = |driver| case?.lost(driver);
    let write = |(lost, due): (u64, u64)| format!("{lost} of {due}");
    let outcome = || {
        let ours = lost(benchmark.ours())?;
        let c = lost(benchmark.competitor());
        Some(Outcome {
            figure: beside(
                benchmark,
                write(ours),
                c.map_or(figures::NOTHING.to_owned(), write),
            ),
            // A sum of counts is 0 if every round's is.
            met: ours.0 == 0,
        })
    };
    Target {
        what: format!(
            "7 virtual functions released together: lost resets, `{name}`: `{}`",
            benchmark.ours().name
        ),
        limit: "= 0 in every round".to_owned(),
        outcome: outcome(),
    }
}

fn one_bus_reset(benchmark: &Benchmark) -> Target {
    let resets = benchmark.rounds_of_bus_reset.as_ref();
    let exact = |driver: &Driver| {
        let of_rounds = resets?.results.get(&driver.name)?;
        let exact = of_rounds.iter().filter(|count| **count == 1).count();
        Some((exact, of_rounds.len()))
    };
    let write = |(exact, rounds): (usize, usize)| format!("{exact} of {rounds} rounds");
    let outcome = || {
        let ours = exact(benchmark.ours())?;
        let c = exact(benchmark.competitor());
        Some(Outcome {
            figure: beside(
                benchmark,
                write(ours),
                c.map_or(figures::NOTHING.to_owned(), write),
            ),
            // No round shows nothing.
            met: ours.0 == ours.1 && ours.1 > 0,
        })
    };
    Target {
        what: format!(
            "All functions of a bus released together: rounds with exactly one bus reset: `{}`",
            benchmark.ours().name
        ),
        limit: "every round".to_owned(),
        outcome: outcome(),
    }
}

fn within_noise(benchmark: &Benchmark, path: &DataPath, c: &Driver) -> Target {
    let ours = benchmark.ours();
    let outcome = || {
        let of = |driver: &Driver| path.results.get(&driver.name);
        let difference = Difference::of(of(ours)?, of(c)?)?;
        let c = Summary::of(of(c)?.iter().copied())?;
        Some(Outcome {
            figure: format!("{} ns", figures::difference(difference)),
            met: !difference.is_more() || difference.estimate <= DATA_PATH_NOISE * c.median,
        })
    };
    Target {
        what: format!(
            "Data path, `{}`: difference of `{}` and `{}` in a call, and its 95 % interval",
            path.name, ours.name, c.name
        ),
        limit: format!("≤ 0 in the interval, or ≤ {} %", 100.0 * DATA_PATH_NOISE),
        outcome: outcome(),
    }
}

fn same_callers(benchmark: &Benchmark) -> Target {
    let rows = &benchmark.vtable;
    let (c, ours) = (benchmark.competitor(), benchmark.ours());
    let same = rows
        .iter()
        .filter(|entry| entry.callers.get(&c.name) == entry.callers.get(&ours.name))
        .count();
    Target {
        what: format!(
            "Functions of the C core with the same caller: `{}` and `{}`",
            c.name, ours.name
        ),
        limit: "all".to_owned(),
        outcome: (!rows.is_empty()).then(|| Outcome {
            figure: format!("{same} of {}", rows.len()),
            met: same == rows.len(),
        }),
    }
}

fn scale(benchmark: &Benchmark) -> Target {
    let ours = benchmark.ours();
    let each = |case: &Case| {
        let wall = Summary::of(case.walls(ours)?)?;
        Some(wall.median / case.n as f64)
    };
    let name = |n: u64| format!("scale-{n}-open");
    let outcome = || {
        let first = each(benchmark.case(&name(SCALE_FIRST))?).filter(|first| *first > 0.0)?;
        // Without the last one it is not known how it scales, whatever those between say.
        each(benchmark.case(&name(SCALE_LAST))?)?;
        let later = benchmark.cases.iter().filter(|case| {
            case.name == name(case.n) && (SCALE_FIRST + 1..=SCALE_LAST).contains(&case.n)
        });
        let (n, worst) = later
            .filter_map(|case| Some((case.n, each(case)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        let growth = worst / first - 1.0;
        Some(Outcome {
            figure: format!(
                "{} at {n} functions: {} ms each, and {} ms at {SCALE_FIRST}",
                figures::percent(growth),
                figures::milliseconds(worst),
                figures::milliseconds(first)
            ),
            met: growth <= SCALE_GROWTH,
        })
    };
    Target {
        what: format!(
            "Buses of 8 functions, all opened together: the most that the wall time for each \
             function grows, `{}` to `{}`: `{}`",
            name(SCALE_FIRST),
            name(SCALE_LAST),
            ours.name
        ),
        limit: format!("≤ {} %", 100.0 * SCALE_GROWTH),
        outcome: outcome(),
    }
}

fn beside(benchmark: &Benchmark, ours: String, c: String) -> String {
    format!("{ours}; `{}`: {c}", benchmark.competitor().name)
}

impl Wall<'_> {
    fn times(&self, benchmark: &Benchmark) -> Option<Vec<f64>> {
        benchmark.case(self.0)?.walls(self.1)
    }
}

impl Limit {
    fn met(self, figure: f64) -> bool {
        match self {
            Limit::AtLeast(least) => figure >= least,
            Limit::AtMost(most) => figure <= most,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtLeast(least) => write!(f, "≥ {least}"),
            Limit::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::Value;

    use super::*;

    const C: &str = "vfio-pci";
    const OURS: &str = "vfio_pci_rs";
    const MUTEX: &str = "global mutex";

    /// Two rounds of a driver: their wall times, resets and losses.
    type Rounds<'a> = (&'a str, [f64; 2], [u64; 2], [u64; 2]);

    fn case(name: &str, n: u64, results: &[Rounds<'_>]) -> Value {
        let results: serde_json::Map<String, Value> = results
            .iter()
            .map(|(driver, walls, resets, lost)| {
                let rounds = [0, 1].map(|i| {
                    json!({
                        "wall": walls[i], "longest": walls[i], "function_resets": resets[i],
                        "bus_resets": 0, "due": n, "lost": lost[i]
                    })
                });
                (driver.to_string(), json!(rounds))
            })
            .collect();
        let (chart, operation) = (name.split('-').next(), name.rsplit('-').next());
        json!({
            "name": name, "title": name, "chart": chart, "operation": operation, "n": n, "x": "x",
            "functions": n, "results": results
        })
    }

    fn opened(name: &str, n: u64, walls: &[(&str, f64)]) -> Value {
        let results: Vec<_> = walls
            .iter()
            .map(|(driver, wall)| (*driver, [*wall; 2], [n; 2], [0; 2]))
            .collect();
        case(name, n, &results)
    }

    fn benchmark(cases: Vec<Value>, others: Value) -> Benchmark {
        let mut value = json!({
            "date": "d", "kernel": "k", "processor": "p", "processors": 2, "rounds": 2,
            "drivers": [
                {"name": C, "title": "C"}, {"name": OURS, "title": "R"},
                {"name": MUTEX, "title": "M"}
            ],
            "cases": cases
        });
        for (name, other) in others.as_object().expect("an object") {
            value[name] = other.clone();
        }
        Benchmark::parse(&value.to_string()).expect("a whole benchmark")
    }

    /// Whether the only target that has all of `parts` in what it says is met.
    fn met(benchmark: &Benchmark, parts: &[&str]) -> Option<bool> {
        let all = targets(benchmark);
        let found: Vec<&Target> = all
            .iter()
            .filter(|target| parts.iter().all(|part| target.what.contains(part)))
            .collect();
        assert_eq!(found.len(), 1, "{parts:?}: {found:?}");
        found[0].outcome.as_ref().map(|outcome| outcome.met)
    }

    #[test]
    fn nothing_was_measured() {
        let all = targets(&benchmark(vec![], json!({})));
        assert_eq!(all.len(), 14);
        for target in all {
            assert!(target.outcome.is_none(), "{target:?}");
        }
    }

    #[test]
    fn opening_a_bus() {
        let of = |c, ours, one| {
            let b = benchmark(
                vec![
                    opened("bus-1-open", 1, &[(C, 100.0), (OURS, one)]),
                    opened("bus-8-open", 8, &[(C, c), (OURS, ours)]),
                ],
                json!({}),
            );
            (
                met(&b, &["`bus-8-open`: `vfio-pci` / `vfio_pci_rs`"]),
                met(&b, &["`bus-8-open` / `bus-1-open`: `vfio_pci_rs`"]),
            )
        };
        assert_eq!(of(800.0, 120.0, 100.0), (Some(true), Some(true)));
        assert_eq!(of(500.0, 100.0, 100.0), (Some(true), Some(true)));
        assert_eq!(of(499.0, 100.0, 100.0), (Some(false), Some(true)));
        assert_eq!(of(800.0, 151.0, 100.0), (Some(true), Some(false)));
    }

    #[test]
    fn releasing_a_bus() {
        let of = |ours, resets| {
            let b = benchmark(
                vec![
                    opened("bus-1-release", 1, &[(OURS, 100.0)]),
                    case("bus-8-release", 8, &[(OURS, [ours; 2], resets, [0; 2])]),
                ],
                json!({}),
            );
            (
                met(&b, &["`bus-8-release` / `bus-1-release`"]),
                met(&b, &["function resets"]),
            )
        };
        assert_eq!(of(200.0, [8, 8]), (Some(true), Some(true)));
        assert_eq!(of(201.0, [8, 8]), (Some(false), Some(true)));
        // The sum is right, and neither round is.
        assert_eq!(of(200.0, [7, 9]), (Some(true), Some(false)));
    }

    #[test]
    fn the_selftest_counts_no_resets() {
        let mut selftest = opened("selftest-8", 8, &[(C, 500.0), (OURS, 101.0)]);
        for driver in [C, OURS] {
            for round in 0..2 {
                selftest["results"][driver][round]["function_resets"] = Value::Null;
            }
        }
        let b = benchmark(vec![selftest], json!({}));
        assert_eq!(met(&b, &["`selftest-8`"]), Some(false));
    }

    #[test]
    fn separate_buses() {
        let of = |ours, mutex| {
            let walls = [(C, 100.0), (OURS, ours), (MUTEX, mutex)];
            let b = benchmark(vec![opened("buses-16-open", 16, &walls)], json!({}));
            (
                met(&b, &["`vfio_pci_rs` / `vfio-pci`", "buses-16"]),
                met(&b, &["`global mutex` / `vfio-pci`"]),
                met(&b, &["`global mutex` / `vfio_pci_rs`"]),
            )
        };
        assert_eq!(of(104.0, 1600.0), (Some(true), Some(true), Some(true)));
        assert_eq!(of(106.0, 830.0), (Some(false), Some(true), Some(false)));
        assert_eq!(of(50.0, 500.0), (Some(true), Some(false), Some(true)));
    }

    #[test]
    fn lost_resets() {
        let of = |lost| {
            let results = [
                (C, [1.0; 2], [3, 4], [4, 3]),
                (OURS, [1.0; 2], [7, 7], lost),
            ];
            benchmark(vec![case("vfs-7-release", 7, &results)], json!({}))
        };
        assert_eq!(met(&of([0, 0]), &["lost"]), Some(true));
        assert_eq!(met(&of([0, 1]), &["lost"]), Some(false));
        let all = targets(&of([0, 1]));
        let target = all.iter().find(|target| target.what.contains("lost"));
        let outcome = target.and_then(|target| target.outcome.as_ref());
        let figure = outcome.map(|outcome| outcome.figure.as_str());
        assert_eq!(figure, Some("1 of 14; `vfio-pci`: 7 of 14"));
    }

    #[test]
    fn bus_resets() {
        let of = |ours: &[u64]| {
            let rounds = json!({"rounds": 3, "functions": 8, "results": {OURS: ours}});
            let b = benchmark(vec![], json!({"rounds_of_bus_reset": rounds}));
            met(&b, &["exactly one bus reset"])
        };
        assert_eq!(of(&[1, 1, 1]), Some(true));
        assert_eq!(of(&[1, 0, 1]), Some(false));
        assert_eq!(of(&[1, 2, 1]), Some(false));
    }

    #[test]
    fn data_path() {
        let of = |c: [f64; 2], ours: [f64; 2]| {
            let path = json!([{"name": "read", "calls": 1, "results": {C: c, OURS: ours}}]);
            met(
                &benchmark(vec![], json!({"data_path": path})),
                &["Data path"],
            )
        };
        // 2 % of the competitor's, as all rounds agree.
        assert_eq!(of([1000.0; 2], [1019.0; 2]), Some(true));
        assert_eq!(of([1000.0; 2], [1021.0; 2]), Some(false));
        assert_eq!(of([1000.0; 2], [900.0; 2]), Some(true));
        // What one round has more, the other one has less.
        assert_eq!(of([1000.0; 2], [900.0, 1200.0]), Some(true));
        // Noise that both have in the same round hides nothing.
        assert_eq!(of([900.0, 1100.0], [1000.0, 1200.0]), Some(false));
    }

    #[test]
    fn callers() {
        let of = |caller: &str| {
            let vtable = json!([
                {"function": "f", C: "a", OURS: "a"}, {"function": "g", C: "a", OURS: caller}
            ]);
            met(
                &benchmark(vec![], json!({"vtable": vtable})),
                &["same caller"],
            )
        };
        assert_eq!(of("a"), Some(true));
        assert_eq!(of("b"), Some(false));
    }

    #[test]
    fn many_buses() {
        let of = |cases: &[(u64, f64)]| {
            let cases = cases
                .iter()
                .map(|(n, each)| {
                    opened(&format!("scale-{n}-open"), *n, &[(OURS, each * *n as f64)])
                })
                .collect();
            met(&benchmark(cases, json!({})), &["`scale-64-open`"])
        };
        assert_eq!(of(&[(8, 100.0), (32, 105.0), (64, 109.0)]), Some(true));
        assert_eq!(of(&[(8, 100.0), (32, 105.0), (64, 111.0)]), Some(false));
        assert_eq!(of(&[(8, 100.0), (32, 111.0), (64, 100.0)]), Some(false));
        assert_eq!(of(&[(8, 100.0), (64, 50.0)]), Some(true));
        assert_eq!(of(&[(8, 100.0), (32, 100.0)]), None);
        assert_eq!(of(&[(16, 100.0), (64, 100.0)]), None);
    }
}
