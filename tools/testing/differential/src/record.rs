// SPDX-License-Identifier: GPL-2.0

//! Having the same calls made on one driver after the other, and on several devices side by side: most
//! of the time goes into waiting for resets.
//!
//! Devices have nothing to do with each other: each has a bus and an IOMMU group of its own. One device
//! is used by one thread, in one way to open it after the other.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::mpsc;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use vfio_pci_rs_guest::driver::Driver;
use vfio_pci_rs_guest::topology::Device;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

use crate::compare::Runs;
use crate::devices::Profile;
use crate::facts::Facts;
use crate::fixed;
use crate::random;
use crate::session::Mode;
use crate::session::Session;

/// What is made.
#[derive(Debug)]
pub struct Recorder {
    /// The driver in C.
    pub c: Driver,
    /// The one that is compared with it.
    pub ours: Driver,
    /// How devices are opened.
    pub modes: Vec<Mode>,
    /// Whether the fixed script writes to extended configuration space only in brief.
    pub brief: bool,
    /// Where sequences of random calls come from.
    pub seeds: Range<u64>,
    /// How many calls each has.
    pub calls: usize,
}

/// What was written down of a device, in the fixed script and with each seed.
#[derive(Debug, Default)]
pub struct Parts {
    /// The fixed script.
    pub fixed: Runs,
    /// Random calls.
    pub seeds: Vec<(u64, Runs)>,
}

/// A device that was used in one way.
pub struct Recorded {
    /// What it is.
    pub profile: &'static Profile,
    /// How it was opened.
    pub mode: Mode,
    /// What was written down.
    pub parts: Parts,
    /// How that went.
    pub result: Result<()>,
}

impl Recorder {
    /// Uses `devices`, as many at a time as `jobs` says. What was written down of each goes to `each`,
    /// which is called in this thread.
    pub fn record(
        &self,
        devices: Vec<(Device, &'static Profile)>,
        jobs: NonZeroUsize,
        mut each: impl FnMut(Recorded) -> Result<()>,
    ) -> Result<()> {
        let queue = Mutex::new(VecDeque::from(devices));
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..jobs.get() {
                let sender = sender.clone();
                scope.spawn(|| self.work(&queue, sender));
            }
            drop(sender);
            // Their end is seen here too, should one end before its time.
            receiver.into_iter().try_for_each(&mut each)
        })
    }

    fn work(
        &self,
        queue: &Mutex<VecDeque<(Device, &'static Profile)>>,
        sender: mpsc::Sender<Recorded>,
    ) {
        loop {
            let next = match queue.lock() {
                Ok(mut queue) => queue.pop_front(),
                // Another thread has ended, and its scope will.
                Err(_) => None,
            };
            let Some((function, profile)) = next else {
                return;
            };
            let mut prepared = self.prepare(&function, profile);
            for mode in &self.modes {
                let mut parts = Parts::default();
                let result = std::mem::replace(&mut prepared, Ok(()))
                    .and_then(|()| self.device(&function, profile, *mode, &mut parts));
                // Whatever driver it was left with.
                let result = result.and(function.release());
                let recorded = Recorded {
                    profile,
                    mode: *mode,
                    parts,
                    result,
                };
                if sender.send(recorded).is_err() {
                    return;
                }
            }
        }
    }

    /// Puts a device into the state that it will be in when its user has gone: the reset that it has
    /// when it is opened does not reset all of what the machine's boot has left in it.
    fn prepare(&self, function: &Device, profile: &Profile) -> Result<()> {
        let mode = *self
            .modes
            .first()
            .ok_or_else(|| Error::new("there is no way to open a device"))?;
        function.bind(self.c.name())?;
        let mut session = Session::new(function, profile, mode)?;
        session.open();
        fixed::hot_reset(&mut session);
        session.finish();
        function.release()
    }

    /// Makes the calls on one driver after the other.
    fn device(
        &self,
        function: &Device,
        profile: &Profile,
        mode: Mode,
        parts: &mut Parts,
    ) -> Result<()> {
        let start = Instant::now();
        parts.seeds = self
            .seeds
            .clone()
            .map(|seed| (seed, Runs::default()))
            .collect();
        let mut facts: Option<Facts> = None;
        for (number, driver) in [&self.c, &self.ours, &self.c].into_iter().enumerate() {
            function.bind(driver.name())?;
            let mut session = Session::new(function, profile, mode)?;
            let own = fixed::run(&mut session, self.brief)?;
            *parts.fixed.run(number) = session.finish();
            // The same calls on all of them, whatever a driver says of the device.
            let facts = facts.get_or_insert(own);
            for (seed, runs) in &mut parts.seeds {
                let mut session = Session::new(function, profile, mode)?;
                random::run(&mut session, facts, *seed, self.calls);
                *runs.run(number) = session.finish();
            }
            function.release()?;
        }
        println!(
            "# {} {mode}: the calls took {:.1} s",
            profile.role,
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
