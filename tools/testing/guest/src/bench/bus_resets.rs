// SPDX-License-Identifier: GPL-2.0

//! Functions that only a reset of their bus cleans, opened and released together again and again:
//! is it one bus reset each time?

use crate::bench::charts;
use crate::bench::measure::Resets;
use crate::bench::report::BusResets;
use crate::bench::report::Report;
use crate::bench::Bench;
use crate::bench::TWO;
use crate::lab::Bound;
use crate::trace::Tracer;
use crate::vfio::User;
use crate::Result;

pub(super) const NAME: &str = "bus-resets";

const FUNCTIONS: usize = 8;

pub(super) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let functions = bench.family("dirty", FUNCTIONS)?;
    let mut counted = BusResets {
        functions: FUNCTIONS,
        ..BusResets::default()
    };
    let due = Resets {
        function: 0,
        bus: 1,
    };
    let rounds = bench.bus_reset_rounds;
    for name in TWO {
        let competitor = bench.competitor(name)?;
        let loaded = competitor.load()?;
        let bound = Bound::bind(competitor.driver(), &functions)?;
        let user = User::with_iommufd()?;
        let tracer = Tracer::start_counting()?;
        let counts = counted.results.entry(competitor.name).or_default();
        for round in 1..=rounds {
            let (open, opened) = charts::open(&tracer, &user, &functions, Resets::default())?;
            let release = charts::release(&tracer, opened, due)?;
            // One that was too many may have been made at the open.
            let both = [open.resets, release.resets];
            counts.push(both.iter().flatten().map(|resets| resets.bus).sum());
            if round % 10 == 0 || round == rounds {
                println!("{NAME}, round {round} of {rounds}: {name}");
            }
        }
        drop(tracer);
        bound.release()?;
        loaded.unload()?;
    }
    report.bus_resets = Some(counted);
    Ok(())
}
