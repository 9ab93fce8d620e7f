// SPDX-License-Identifier: GPL-2.0

//! Opening a function while a bus is being reset, because another function was released: does one
//! wait that has nothing to do with it?

use std::thread;

use crate::bench::charts::case;
use crate::bench::drivers::Competitor;
use crate::bench::measure::made;
use crate::bench::measure::timed;
use crate::bench::measure::Resets;
use crate::bench::measure::Sample;
use crate::bench::report::Case;
use crate::bench::report::Operation;
use crate::bench::report::Report;
use crate::bench::together::wait_asleep;
use crate::bench::Bench;
use crate::bench::EVERYBODY;
use crate::topology::Device;
use crate::trace::Tracer;
use crate::vfio::User;
use crate::wait;
use crate::Error;
use crate::Result;

pub(super) const NAME: &str = "sibling";

pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let dirty = bench.family("dirty", 2)?;
    let other = bench.family("other", 1)?;
    // Whoever has a reset of its own first: the others take a second for warming up.
    let functions = [other.as_slice(), &bench.topology.family("dirty", 2)?].concat();
    bench.in_turns_on(NAME, EVERYBODY, &functions, |competitor, user| {
        let tracer = Tracer::start_counting()?;
        let mut measure =
            |chart: &'static str, title: &str, function: &Device, due| -> Result<()> {
                let sample = during_reset(&tracer, user, &dirty[0], function, due)?;
                add(report, competitor, chart, title, sample);
                Ok(())
            };
        measure(
            "sibling-other",
            "open a function while another bus is reset",
            &other[0],
            Resets {
                function: 1,
                bus: 1,
            },
        )?;
        measure(
            "sibling-same",
            "open a function while its bus is reset",
            &dirty[1],
            Resets {
                function: 0,
                bus: 1,
            },
        )
    })
}

fn add(
    report: &mut Report,
    competitor: &Competitor,
    chart: &'static str,
    title: &str,
    sample: Sample,
) {
    let case = Case {
        name: format!("{chart}-open"),
        ..case(chart, Operation::Open, 1, "functions", title.to_owned())
    };
    report.add(case, competitor.name, sample);
}

/// Releases `dirty`, and opens `function` as soon as the bus of `dirty` is being reset.
fn during_reset(
    tracer: &Tracer,
    user: &User,
    dirty: &Device,
    function: &Device,
    due: Resets,
) -> Result<Sample> {
    wait_asleep(&[dirty.clone(), function.clone()])?;
    let opened = user.open(dirty)?;
    let ((released, open), calls) = tracer.count(|| {
        thread::scope(|scope| {
            let release = scope.spawn(move || {
                timed(|| {
                    drop(opened);
                    Ok(())
                })
            });
            let resets = wait::until(
                wait::SETTLE,
                || Ok(tracer.calls()?.bus_or_slot()),
                |resets: &Result<usize>| !matches!(resets, Ok(0)),
            )?;
            if resets == 0 {
                return Err(Error::new(format!(
                    "{dirty} was released without a bus reset"
                )));
            }
            let open = timed(|| user.open(function))?;
            let released = release
                .join()
                .map_err(|_| Error::new(format!("releasing {dirty} panicked")))??;
            // What is open stays open: its release is not to be counted.
            Ok((released.span, open))
        })
    })?;
    if open.span.start >= released.end {
        return Err(Error::new(format!(
            "the bus of {dirty} was reset before {function} could be opened"
        )));
    }
    Ok(Sample::of(&[open.span]).with_resets(made(&calls), due))
}
