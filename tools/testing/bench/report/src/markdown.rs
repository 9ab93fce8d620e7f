// SPDX-License-Identifier: GPL-2.0

//! The report in words and tables, with the pictures by relative links.

use std::fmt;
use std::fmt::Write;

use crate::drawing::Picture;
use crate::figures;
use crate::figures::NOTHING;
use crate::model::Benchmark;
use crate::model::Case;
use crate::model::DataPath;
use crate::model::Driver;
use crate::model::Group;
use crate::model::Round;
use crate::statistics::Ratio;
use crate::statistics::Summary;
use crate::targets;
use crate::targets::Target;

const SPDX: &str = "<!-- SPDX-License-Identifier: GPL-2.0 -->";

/// What is counted of a round.
type Count = fn(&Round) -> Option<u64>;

/// A table whose first column is text, and whose others are figures.
#[derive(Debug)]
struct Table {
    /// The names of the columns, then the rows.
    rows: Vec<Vec<String>>,
    text_columns: usize,
}

/// What a group of cases is called.
pub fn title(group: &Group<'_>) -> String {
    match group.cases.as_slice() {
        [case] => capital(&case.title),
        _ => format!("{}: {}", capital(group.operation), group.x),
    }
}

/// The text of `benchmark.md`.
pub fn text(
    benchmark: &Benchmark,
    note: Option<&str>,
    charts: &[(Group<'_>, Option<Picture>)],
    timelines: &[Picture],
) -> String {
    let mut sections = vec![
        format!("{SPDX}\n# Benchmark"),
        subject(benchmark, note),
        "## Targets".to_owned(),
    ];
    sections.extend(target_sections(&targets::targets(benchmark)));

    if !charts.is_empty() {
        sections.push("## Operations".to_owned());
        sections.push(
            "Wall time is from when the first function began to when the last was done, the \
             longest wait that of one function. Lost are the resets that were due and not made, the \
             sum over all rounds: as many as there are functions with a reset of their own, and \
             one of the bus for those without, at the last release."
                .to_owned(),
        );
        let mut rounds = benchmark
            .cases
            .iter()
            .flat_map(|c| c.results.values().flatten());
        if rounds.any(|round| round.processor.is_some()) {
            sections.push(format!(
                "Processor time is what all functions together had of the {0} processors: no wall \
                 time can be less than that divided by {0}.",
                benchmark.processors
            ));
        }
    }
    for (group, picture) in charts {
        sections.push(format!("### {}", plain(&title(group))));
        sections.extend(picture.as_ref().map(link));
        sections.push(times(benchmark, group).to_string());
        sections.extend(resets(benchmark, group).map(|table| table.to_string()));
    }

    if !timelines.is_empty() {
        sections.push("## Timelines".to_owned());
        sections.push(
            "One round of each driver; all drivers in a picture have the same scale of time. What \
             takes less than a pixel is drawn one pixel wide."
                .to_owned(),
        );
        sections.extend(timelines.iter().map(link));
    }
    if !benchmark.data_path.is_empty() {
        sections.push("## Data path".to_owned());
        sections.push(
            "Nanoseconds a call, on one open function; in each round the fastest of 20 parts, as \
             others on the host can only add to the time. No driver has a part in these calls but \
             vfio-pci-core, whose machine code for them is the same with our patches and without, \
             but for two cases that the ioctl has more. Where it lies is not, which an emulated \
             processor notices. So there are the C driver on the same core, and the C driver on \
             the core without our patches, with so many bytes more in it that the functions which \
             access config space and BARs and set up interrupts lie in their pages as those of \
             the other core do."
                .to_owned(),
        );
        sections.push(data_path(benchmark).to_string());
    }
    if !benchmark.vtable.is_empty() {
        sections.push("## Callers of the C core".to_owned());
        sections.push(
            "Found by the function tracer. Where the caller is the same, there is no function of \
             ours between."
                .to_owned(),
        );
        sections.push(vtable(benchmark).to_string());
    }
    sections.extend(bus_resets(benchmark));
    sections.join("\n\n") + "\n"
}

fn subject(benchmark: &Benchmark, note: Option<&str>) -> String {
    let mut lines = vec![
        "- Command: `make bench`".to_owned(),
        format!("- Date: {} (UTC)", plain(&benchmark.date)),
        format!("- Kernel: {}", plain(&benchmark.kernel)),
        format!(
            "- Machine: {} × {}{}",
            benchmark.processors,
            plain(&benchmark.processor),
            note.map(|note| format!("; {}", plain(note)))
                .unwrap_or_default()
        ),
        format!(
            "- Rounds: {}. Figures are medians, with the least and the most in brackets; ratios \
             are of medians, with the lowest and the highest of rounds of the same number.",
            benchmark.rounds
        ),
        "- Drivers:".to_owned(),
    ];
    for driver in &benchmark.drivers {
        let explanation = driver
            .explanation()
            .map(|text| format!(": {}", plain(text)));
        lines.push(format!(
            "  - {}{}",
            code(&driver.name),
            explanation.unwrap_or_default()
        ));
    }
    lines.join("\n")
}

fn target_sections(targets: &[Target]) -> [String; 2] {
    let count = |met: Option<bool>| {
        let outcomes = targets.iter().map(|target| target.outcome.as_ref());
        outcomes.filter(|o| o.map(|o| o.met) == met).count()
    };
    let mut table = Table::new(4, ["target", "measured", "limit", "met"]);
    for target in targets {
        let (figure, met) = match &target.outcome {
            Some(outcome) if outcome.met => (outcome.figure.as_str(), "yes"),
            Some(outcome) => (outcome.figure.as_str(), "no"),
            None => (NOTHING, "not measured"),
        };
        table.row([&target.what, figure, &target.limit, met]);
    }
    [
        format!(
            "{} of {} met, {} not met, {} not measured. They are written down and not asserted.",
            count(Some(true)),
            targets.len(),
            count(Some(false)),
            count(None)
        ),
        table.to_string(),
    ]
}

/// The drivers that were measured in any case of the group.
fn measured<'a>(benchmark: &'a Benchmark, group: &Group<'_>) -> Vec<&'a Driver> {
    let drivers = benchmark.drivers.iter();
    drivers
        .filter(|driver| group.cases.iter().any(|case| case.rounds(driver).is_some()))
        .collect()
}

fn times(benchmark: &Benchmark, group: &Group<'_>) -> Table {
    let drivers = measured(benchmark, group);
    let ours = benchmark.ours();
    let others: Vec<&Driver> = if drivers.iter().any(|driver| driver.name == ours.name) {
        let others = drivers.iter().filter(|driver| driver.name != ours.name);
        others.copied().collect()
    } else {
        Vec::new()
    };

    let mut head = vec![group.x.to_owned()];
    head.extend(columns(&drivers, "wall, ms"));
    head.extend(columns(&drivers, "longest wait, ms"));
    let processor = |case: &Case, driver: &Driver| {
        let rounds = case.rounds(driver)?.iter();
        let times: Option<Vec<f64>> = rounds.map(|round| round.processor).collect();
        Summary::of(times?)
    };
    let has_processor = |case: &&Case| drivers.iter().any(|d| processor(case, d).is_some());
    let with_processor = group.cases.iter().any(has_processor);
    if with_processor {
        head.extend(columns(&drivers, "processor, ms"));
    }
    head.extend(
        others
            .iter()
            .map(|other| format!("{} / {}", code(&other.name), code(&ours.name))),
    );
    let mut table = Table::new(1, head);
    for case in &group.cases {
        let mut row = vec![case.n.to_string()];
        row.extend(drivers.iter().map(|driver| {
            let wall = case.walls(driver).and_then(Summary::of);
            cell(wall, |wall| figures::summary(wall, figures::milliseconds))
        }));
        row.extend(drivers.iter().map(|driver| {
            let rounds = case.rounds(driver).unwrap_or_default();
            let longest = Summary::of(rounds.iter().map(|round| round.longest));
            cell(longest, |longest| figures::milliseconds(longest.median))
        }));
        if with_processor {
            row.extend(drivers.iter().map(|driver| {
                let time = processor(case, driver);
                cell(time, |time| figures::milliseconds(time.median))
            }));
        }
        row.extend(others.iter().map(|other| {
            let walls = case.walls(other).zip(case.walls(ours));
            let ratio = walls.and_then(|(other, ours)| Ratio::of(&other, &ours));
            cell(ratio, |ratio| figures::ratio(ratio, 2))
        }));
        table.row(row);
    }
    table
}

/// None if no resets were counted.
fn resets(benchmark: &Benchmark, group: &Group<'_>) -> Option<Table> {
    let drivers = measured(benchmark, group);
    let counts: [(&str, Count); 2] = [
        ("function resets", |round| round.function_resets),
        ("bus resets", |round| round.bus_resets),
    ];
    let lost = |case: &Case, driver: &Driver| case.lost(driver);
    let any = group.cases.iter().any(|case| {
        drivers.iter().any(|driver| {
            let counted = counts.iter().any(|c| case.counts(driver, c.1).is_some());
            counted || lost(case, driver).is_some()
        })
    });
    if !any {
        return None;
    }

    let mut head = vec![group.x.to_owned()];
    for (what, _) in counts {
        head.extend(columns(&drivers, what));
    }
    head.extend(columns(&drivers, "lost"));
    let mut table = Table::new(1, head);
    for case in &group.cases {
        let mut row = vec![case.n.to_string()];
        for (_, count) in counts {
            row.extend(drivers.iter().map(|driver| {
                let counted = case.counts(driver, count);
                cell(counted, |counted| figures::counts(&counted))
            }));
        }
        row.extend(
            drivers
                .iter()
                .map(|driver| cell(lost(case, driver), |(lost, due)| format!("{lost} of {due}"))),
        );
        table.row(row);
    }
    Some(table)
}

fn data_path(benchmark: &Benchmark) -> Table {
    let drivers: Vec<&Driver> = benchmark
        .drivers
        .iter()
        .filter(|driver| {
            let mut paths = benchmark.data_path.iter();
            paths.any(|path| path.results.contains_key(&driver.name))
        })
        .collect();
    let ours = benchmark.ours();
    let of = |path: &DataPath, driver: &Driver| path.results.get(&driver.name).cloned();

    let mut head = vec!["call".to_owned(), "calls a round".to_owned()];
    head.extend(columns(&drivers, "ns a call"));
    let competitors: Vec<&Driver> = drivers
        .iter()
        .copied()
        .filter(|driver| driver.name != ours.name)
        .collect();
    head.extend(
        competitors
            .iter()
            .map(|driver| format!("{} / {}", code(&ours.name), code(&driver.name))),
    );
    let mut table = Table::new(1, head);
    for path in &benchmark.data_path {
        let mut row = vec![plain(&path.name), path.calls.to_string()];
        row.extend(drivers.iter().map(|driver| {
            let summary = of(path, driver).and_then(Summary::of);
            cell(summary, |summary| {
                figures::summary(summary, figures::number)
            })
        }));
        row.extend(competitors.iter().map(|driver| {
            let ratio = of(path, ours).zip(of(path, driver));
            let ratio = ratio.and_then(|(ours, other)| Ratio::of(&ours, &other));
            cell(ratio, |ratio| figures::ratio(ratio, 3))
        }));
        table.row(row);
    }
    table
}

fn vtable(benchmark: &Benchmark) -> Table {
    let (c, ours) = (benchmark.competitor(), benchmark.ours());
    let drivers: Vec<&Driver> = benchmark
        .drivers
        .iter()
        .filter(|driver| {
            let mut entries = benchmark.vtable.iter();
            entries.any(|entry| entry.callers.contains_key(&driver.name))
        })
        .collect();
    let mut head = vec!["function".to_owned()];
    head.extend(columns(&drivers, "caller"));
    head.push("the same".to_owned());
    let mut table = Table::new(head.len(), head);
    for entry in &benchmark.vtable {
        let caller = |driver: &Driver| entry.callers.get(&driver.name);
        let mut row = vec![code(&entry.function)];
        row.extend(
            drivers
                .iter()
                .map(|driver| cell(caller(driver), |caller| code(caller))),
        );
        row.push(
            if caller(c) == caller(ours) {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
        );
        table.row(row);
    }
    table
}

fn bus_resets(benchmark: &Benchmark) -> Vec<String> {
    let Some(resets) = &benchmark.rounds_of_bus_reset else {
        return Vec::new();
    };
    let head = [
        "driver",
        "rounds with none",
        "with exactly one",
        "with more",
    ];
    let mut table = Table::new(1, head);
    for driver in &benchmark.drivers {
        let Some(rounds) = resets.results.get(&driver.name) else {
            continue;
        };
        let count = |is: fn(u64) -> bool| rounds.iter().filter(|n| is(**n)).count().to_string();
        table.row([
            code(&driver.name),
            count(|n| n == 0),
            count(|n| n == 1),
            count(|n| n > 1),
        ]);
    }
    vec![
        "## Bus resets".to_owned(),
        format!(
            "In each of {} rounds, {} functions of one bus were released together.",
            resets.rounds, resets.functions
        ),
        table.to_string(),
    ]
}

fn columns(drivers: &[&Driver], what: &str) -> Vec<String> {
    let drivers = drivers.iter();
    drivers
        .map(|driver| format!("{}: {what}", code(&driver.name)))
        .collect()
}

fn cell<T>(value: Option<T>, write: impl FnOnce(T) -> String) -> String {
    value.map_or(NOTHING.to_owned(), write)
}

fn link(picture: &Picture) -> String {
    format!("![{}]({})", plain(&picture.alternative), picture.file)
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Text of the input in which nothing is markup.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '[' | ']' | '<' => plain.extend(['\\', c]),
            '\n' | '\r' => plain.push(' '),
            _ => plain.push(c),
        }
    }
    plain
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + rest.as_str()
}

impl Table {
    fn new(text_columns: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut table = Table {
            rows: Vec::new(),
            text_columns,
        };
        table.row(head);
        table
    }

    fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let cells = cells.into_iter();
        self.rows
            .push(cells.map(|cell| cell.into().replace('|', "\\|")).collect());
    }
}

impl fmt::Display for Table {
    /// With the columns below each other, for those who read the file as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 3);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::from("|");
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column < self.text_columns {
                    write!(line, " {cell:<width$} |")?;
                } else {
                    write!(line, " {cell:>width$} |")?;
                }
            }
            if i > 0 {
                f.write_char('\n')?;
            }
            f.write_str(&line)?;
            if i == 0 {
                f.write_str("\n|")?;
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(*width);
                    let end = if column < self.text_columns { "-" } else { ":" };
                    write!(f, "-{dashes}{end}|")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let mut table = Table::new(1, ["n", "wall"]);
        table.row(["a|b", "12345"]);
        let expected = "| n    |  wall |\n|------|------:|\n| a\\|b | 12345 |";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn text_of_the_input_is_no_markup() {
        assert_eq!(plain("a*b <c>\n`d`"), "a\\*b \\<c> \\`d\\`");
    }
}
