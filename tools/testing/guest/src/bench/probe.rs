// SPDX-License-Identifier: GPL-2.0

//! Binding many functions, one after the other, as udev does.

use crate::bench::charts::case;
use crate::bench::measure::made;
use crate::bench::measure::timed;
use crate::bench::measure::Sample;
use crate::bench::measure::Span;
use crate::bench::report::Case;
use crate::bench::report::Operation;
use crate::bench::report::Report;
use crate::bench::Bench;
use crate::bench::TWO;
use crate::lab::Bound;
use crate::trace::Tracer;
use crate::Result;

pub(super) const NAME: &str = "probe";

const BUSES: usize = 25;
const EACH: usize = 8;
const NUMBERS: [usize; 3] = [1, 64, 200];

/// What is measured for one number is the beginning of what is measured for the next one.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let functions = bench.grid(BUSES, EACH)?;
    // The third driver does here what the second one does.
    bench.in_turns(NAME, TWO, |competitor| {
        Bound::bind(competitor.driver(), functions.last())?.release()?;

        let tracer = Tracer::start_counting()?;
        let mut bound = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        let mut samples = Vec::new();
        for function in &functions {
            let done = timed(|| Bound::bind(competitor.driver(), [function]))?;
            bound.push(done.value);
            spans.push(done.span);
            if NUMBERS.contains(&spans.len()) {
                samples.push(Sample {
                    wall: spans.iter().map(Span::length).sum(),
                    resets: Some(made(&tracer.calls()?)),
                    ..Sample::of(&spans)
                });
            }
        }
        for (n, sample) in NUMBERS.into_iter().zip(samples) {
            let title = format!("bind {n} functions, one after the other");
            let case = Case {
                name: format!("grid-{n}-{}", Operation::Probe.suffix()),
                ..case(NAME, Operation::Probe, n, "functions", title)
            };
            report.add(case, competitor.name, sample);
        }
        bound.into_iter().try_for_each(Bound::release)
    })
}
