// SPDX-License-Identifier: GPL-2.0

//! Recording the same scripts on one driver after the other, at all places side by side: much of
//! the time is spent waiting for resets.

use std::ops::Range;
use std::sync::mpsc;
use std::thread;

use anyhow::Result;
use lab::driver::Driver;
use lab::topology::Device;

use crate::call::Handle;
use crate::compare::Runs;
use crate::places::Place;
use crate::random;
use crate::script;
use crate::session::{Entry, Mode, Session};

#[derive(Debug)]
pub struct Recorder {
    pub c: Driver,
    pub ours: Driver,
    pub modes: Vec<Mode>,
    pub brief: bool,
    pub seeds: Range<u64>,
    /// The number of calls for each seed.
    pub calls: usize,
}

/// The functions of a place.
pub type Functions = (&'static Place, Vec<Device>);

/// The recordings of a place: the fixed script, then a sequence for each seed.
pub type Recorded = (&'static Place, Mode, Result<Vec<Runs>>);

impl Recorder {
    /// Records at `places`. Passes each recording to `each`, which is called in this thread.
    pub fn record(&self, places: &[Functions], each: impl FnMut(Recorded)) {
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for (place, functions) in places {
                let sender = sender.clone();
                scope.spawn(move || {
                    for mode in &self.modes {
                        let runs = self.place(place, functions, *mode);
                        sender.send((*place, *mode, runs)).expect("the receiver lives longer");
                    }
                });
            }
            drop(sender);
            receiver.into_iter().for_each(each);
        })
    }

    fn place(&self, place: &'static Place, functions: &[Device], mode: Mode) -> Result<Vec<Runs>> {
        self.prepare(place, functions, mode)?;
        let record = |driver: &Driver| self.driver(driver, place, functions, mode);
        let runs = record(&self.c)?.into_iter().zip(record(&self.ours)?);
        Ok(runs.map(|(c, ours)| Runs { c, ours }).collect())
    }

    /// Resets the functions as after their use: the reset at an open leaves some of the state of
    /// the machine's boot.
    fn prepare(&self, place: &'static Place, functions: &[Device], mode: Mode) -> Result<()> {
        functions.iter().try_for_each(|function| function.bind(self.c.name()))?;
        let mut session = Session::new(&self.c, place, functions, mode)?;
        session.open(Handle::DEVICE);
        session.open(Handle::SIBLING);
        script::right_hot_reset(&mut session);
        session.finish();
        Ok(())
    }

    /// Records all scripts on one driver.
    fn driver(
        &self,
        driver: &Driver,
        place: &'static Place,
        functions: &[Device],
        mode: Mode,
    ) -> Result<Vec<Vec<Entry>>> {
        functions.iter().try_for_each(|function| function.bind(driver.name()))?;
        let session = || Session::new(driver, place, functions, mode);
        let mut fixed = session()?;
        script::run(&mut fixed, self.brief)?;
        let mut recordings = vec![fixed.finish()];
        for seed in self.seeds.clone() {
            let mut random = session()?;
            random::run(&mut random, seed, self.calls);
            recordings.push(random.finish());
        }
        functions.iter().try_for_each(|function| function.release())?;
        Ok(recordings)
    }
}
