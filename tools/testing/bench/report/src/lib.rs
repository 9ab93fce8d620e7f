// SPDX-License-Identifier: GPL-2.0

//! From what a benchmark measured to a report that a person reads: the input, the statistics, the
//! targets, and the Markdown and the pictures in which they are told, one module each.
//!
//! The same input makes the same report, to the byte, so that two of them can be compared.

pub mod axis;
pub mod charts;
pub mod drawing;
pub mod error;
pub mod figures;
pub mod markdown;
pub mod merge;
pub mod model;
pub mod statistics;
pub mod targets;
pub mod timeline;

use std::collections::BTreeSet;

pub use error::{Error, Result};

use crate::drawing::Picture;
use crate::model::Benchmark;

/// A file of the report.
#[derive(Debug)]
pub struct File {
    /// Its name in the directory of the report.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Makes the report, with `note` as what is to be said about the machine.
pub fn report(benchmark: &Benchmark, note: Option<&str>) -> Result<Vec<File>> {
    let charts = benchmark
        .groups()
        .into_iter()
        .map(|group| {
            let picture = charts::picture(benchmark, &group)?;
            Ok((group, picture))
        })
        .collect::<Result<Vec<_>>>()?;
    let timelines = timeline::pictures(benchmark)?;

    let mut files = vec![File {
        name: "benchmark.md".to_owned(),
        text: markdown::text(benchmark, note, &charts, &timelines),
    }];
    let pictures = charts.into_iter().filter_map(|(_, picture)| picture);
    files.extend(pictures.chain(timelines).map(Picture::into_file));

    // Names are made of those in the input, without what a file name should not have in it.
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if names.len() < files.len() {
        return Err(Error::new("two pictures would have the same file name"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn benchmark() -> Benchmark {
        let case = |n: u64| {
            let round = json!({
                "wall": 1000 * n, "longest": 900 * n, "processor": 500 * n, "function_resets": n, "bus_resets": 0,
                "due": null, "lost": null
            });
            json!({
                "name": format!("bus-{n}-hot reset"), "title": "t", "chart": "bus",
                "operation": "hot reset", "n": n, "x": "functions", "functions": n,
                "results": {"vfio-pci": [round, round], "vfio_pci_rs": [round, round]}
            })
        };
        let timeline = |driver: &str| {
            json!({
                "name": "open-8", "title": "opened <together>", "driver": driver, "wall": 30,
                "rows": [{"function": "0000:05:00.0", "spans": [
                    {"kind": "opens", "start": 0, "end": 20},
                    {"kind": "function reset", "start": 5, "end": 15}
                ]}]
            })
        };
        let value = json!({
            "date": "d", "kernel": "k", "processor": "p", "processors": 2, "rounds": 2,
            "drivers": [{"name": "vfio-pci", "title": "C"}, {"name": "vfio_pci_rs", "title": "R"}],
            "cases": [case(1), case(8)],
            "timelines": [timeline("vfio_pci_rs"), timeline("vfio-pci")]
        });
        Benchmark::parse(&value.to_string()).expect("a whole benchmark")
    }

    #[test]
    fn files() {
        let files = report(&benchmark(), Some("emulated")).expect("a report");
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let expected = [
            "benchmark.md",
            "chart-bus-hot-reset.svg",
            "timeline-open-8.svg",
        ];
        assert_eq!(names, expected);
        for file in &files {
            let mut head = file.text.lines().take(2);
            assert!(head.any(|line| line.contains("SPDX-License-Identifier: GPL-2.0")));
        }
        for picture in &files[1..] {
            assert!(files[0].text.contains(&format!("]({})", picture.name)));
        }
        assert!(files[2].text.contains("opened &lt;together&gt;"));
    }

    #[test]
    fn the_same_input_makes_the_same_report() {
        let of = || report(&benchmark(), None).expect("a report");
        for (a, b) in of().iter().zip(of()) {
            assert_eq!(a.text, b.text);
        }
    }
}
