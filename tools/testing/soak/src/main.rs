// SPDX-License-Identifier: GPL-2.0

//! Draws operations on functions at random, and checks the driver's promises throughout.
//!
//! A seed is run in rounds, whose operations depend on nothing else. Actors perform them at the
//! same time, each its part of them in order. Then the machine comes to rest and is checked. A
//! round that fails is repeated by its seed and number, and shrunk by leaving out operations.
//!
//! - `operations.rs`: the kinds of operations, and the errors that each may fail with
//! - `user.rs`: the users of functions, and the register that shows whether a function is empty
//! - `checks.rs`: the promises of the driver, in a round and after it
//! - `evidence.rs`: the report of a failure

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{ensure, Result};
use clap::Parser;
use fastrand::Rng;
use lab::driver;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::{Report, Test};
use lab::trace::{Event, Tracepoints};
use nix::time::{clock_gettime, ClockId};

use operations::{Operation, Outcome, World, KINDS};
use user::{Function, Group};

mod checks;
mod evidence;
mod operations;
mod user;

const ACTORS: usize = 12;

/// How long an operation may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Soak a vfio-pci driver.
#[derive(Parser)]
struct Arguments {
    /// The driver under test, by its name under /sys/bus/pci/drivers.
    #[arg(long, default_value = "vfio_pci_rs")]
    driver: String,
    /// The first seed.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// The number of seeds.
    #[arg(long, default_value = "1")]
    seeds: u64,
    /// The number of operations for each seed.
    #[arg(long, default_value = "1000")]
    ops: u64,
    /// The number of operations in a round.
    #[arg(long, default_value = "500")]
    round: usize,
    /// The first round.
    #[arg(long, default_value = "0")]
    from: u64,
    /// Only these operations of each round, by their numbers.
    #[arg(long, value_delimiter = ',')]
    keep: Vec<usize>,
    /// Leave out the operations that a failure does not need.
    #[arg(long)]
    shrink: bool,
    /// Directory of topology.json and of the results.
    #[arg(long, env = "RESULTS", default_value = "/results")]
    results: PathBuf,
    /// Use this function until killed.
    #[arg(long, hide = true)]
    live: Option<String>,
    #[arg(long, hide = true)]
    cdev: bool,
}

/// An operation of a round that has begun.
struct Entry {
    operation: Operation,
    start: Instant,
    end: Option<(Instant, Outcome)>,
}

/// The operations of a round, each with its number.
type Operations = Vec<(usize, Operation)>;

struct Soak {
    arguments: Arguments,
    world: World,
    tracepoints: Option<Tracepoints>,
    kernel: Mark,
    /// By the numbers of the operations.
    log: Mutex<BTreeMap<usize, Entry>>,
    wrong: Mutex<Vec<String>>,
    /// What led to the failure of the last round.
    history: String,
    /// When an operation, or the rest after them, began or ended.
    progress: Mutex<Instant>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(function) = &arguments.live {
        operations::live(function, arguments.cdev)?;
    }
    let lab = Lab::new(&arguments.driver, &arguments.results, 1)?;
    let kernel = Mark::here()?;
    let world = World::new(&lab)?;
    let tracepoints = lab.driver.shows_domains().then(Tracepoints::enable).transpose()?;
    let mut soak = Soak {
        arguments,
        world,
        tracepoints,
        kernel,
        log: Mutex::default(),
        wrong: Mutex::default(),
        history: String::new(),
        progress: Mutex::new(Instant::now()),
    };
    let seeds: Vec<_> = (soak.arguments.seed..).take(soak.arguments.seeds as usize).collect();
    let names: Vec<_> = seeds.iter().map(|seed| format!("seed_{seed}")).collect();
    let mut report = Report::create(&soak.arguments.results, "soak", &names)?;
    for (seed, name) in seeds.into_iter().zip(&names) {
        report.run(name, false, |t| soak.run(t, seed));
    }
    drop(soak);
    lab.restore()?;
    Ok(report.exit_code())
}

impl Soak {
    /// Runs the rounds of a seed, up to the first one that fails.
    fn run(&mut self, t: &mut Test<'_>, seed: u64) -> Result<()> {
        let (first, start) = (self.arguments.from, Instant::now());
        let mut performed = 0;
        let mut kinds = BTreeMap::<_, (BTreeMap<_, u32>, Duration)>::new();
        for number in first..first + self.arguments.ops.div_ceil(self.arguments.round as u64) {
            println!("    # round {number} after {performed} operations");
            let operations = self.draw(seed, number)?;
            let is_cdev = (seed + number) % 2 == 1;
            let wrong = self.round(&operations, is_cdev)?;
            for entry in self.log.lock().expect("no panic").values() {
                let Some((end, outcome)) = &entry.end else { continue };
                let (counts, time) = kinds.entry(KINDS[entry.operation.kind].0).or_default();
                *counts.entry(outcome.text()).or_default() += 1;
                performed += usize::from(!matches!(outcome, Outcome::Idle));
                *time += *end - entry.start;
            }
            if wrong.is_empty() {
                continue;
            }
            t.note(self.logged());
            t.note(&self.history);
            let what = format!("round {number}, after {performed} operations");
            t.check(what, false, || wrong.join("\n"));
            if self.arguments.shrink {
                let left = self.shrink(operations, is_cdev);
                let left: Vec<_> = left.iter().map(|(at, _)| at.to_string()).collect();
                t.note(format!("--seed {seed} --from {number} --ops 1 --keep {}", left.join(",")));
            }
            return Ok(());
        }
        let rate = performed as f64 / start.elapsed().as_secs_f64();
        t.check(format!("{performed} operations"), performed > 0, || "they do nothing");
        t.note(format!("{rate:.1} a second"));
        for (kind, (counts, time)) in kinds {
            let mean = time / counts.values().sum::<u32>();
            t.note(format!("{kind}, {mean:.0?} on average: {counts:?}"));
        }
        Ok(())
    }

    /// Returns the operations of a round, each kind once or more.
    fn draw(&self, seed: u64, number: u64) -> Result<Operations> {
        let Arguments { round, keep, .. } = &self.arguments;
        ensure!(*round >= KINDS.len(), "a round has {} operations or more", KINDS.len());
        let mut rng = Rng::with_seed((seed << 32) | number);
        let urn: Vec<_> =
            (0..KINDS.len()).flat_map(|kind| vec![kind; KINDS[kind].1 as usize]).collect();
        let drawn = (KINDS.len()..*round).map(|_| urn[rng.usize(0..urn.len())]);
        let mut kinds: Vec<_> = (0..KINDS.len()).chain(drawn).collect();
        rng.shuffle(&mut kinds);
        let operations = kinds.into_iter().map(|kind| Operation {
            actor: rng.usize(0..ACTORS),
            kind,
            function: rng.usize(0..self.world.functions.len()),
            number: rng.u32(0..1 << 19),
        });
        let operations: Vec<_> = operations.enumerate().collect();
        Ok(operations.into_iter().filter(|(at, _)| keep.is_empty() || keep.contains(at)).collect())
    }

    /// Performs the operations, and returns the faults.
    fn round(&mut self, operations: &Operations, is_cdev: bool) -> Result<Vec<String>> {
        let is_cdev = is_cdev && Path::new("/dev/iommu").exists();
        self.world.groups.iter_mut().for_each(|group| *group = Group::new(is_cdev));
        self.log.lock().expect("no panic").clear();
        let mut wrong = Vec::new();
        let mut all = || {
            wrong = self.watched(|| {
                self.act(operations);
                self.progresses();
                checks::rest(&self.world)
                    .unwrap_or_else(|error| vec![format!("at rest: {error:#}")])
            });
            Ok(())
        };
        let events = match &self.tracepoints {
            Some(tracepoints) => tracepoints.events(all)?,
            None => all().map(|()| Vec::new())?,
        };
        wrong.extend(std::mem::take(&mut *self.wrong.lock().expect("no panic")));
        wrong.extend(checks::resets_in_use(&events));
        wrong.extend(checks::splats(self.kernel.lines()?));
        self.history = self.history(&wrong, &events)?;
        Ok(wrong)
    }

    /// Returns the last events of each function that a fault names, by the monotonic clock.
    fn history(&self, wrong: &[String], events: &[Event]) -> Result<String> {
        let is_named = |function: &&Function| {
            let names = [function.role.clone(), function.bdf.to_string()];
            wrong.iter().any(|fault| names.iter().any(|name| fault.contains(name)))
        };
        let now = (Instant::now(), Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?));
        let log = self.log.lock().expect("no panic");
        let mut entries: Vec<_> = log.iter().collect();
        entries.sort_by_key(|(_, entry)| entry.start);
        let histories = self.world.functions.iter().filter(is_named).map(|function| {
            let own = entries.iter().filter(|(_, e)| self.world.touches(&e.operation, function));
            let text = |(at, entry): &(&usize, &Entry)| {
                let start = now.1.saturating_sub(now.0 - entry.start);
                let end = entry.end.as_ref().map(|(end, outcome)| (*end - entry.start, outcome));
                let operation = self.world.text(&entry.operation);
                format!("{:.6} {at}. {operation}: {end:?}", start.as_secs_f64())
            };
            evidence::history(function, &own.map(text).collect::<Vec<_>>(), events)
        });
        Ok(histories.collect())
    }

    /// Returns operations that still fail, of which no one can be left out.
    fn shrink(&mut self, mut left: Operations, is_cdev: bool) -> Operations {
        let mut size = left.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < left.len() {
                let end = (at + size).min(left.len());
                let fewer = [&left[..at], &left[end..]].concat();
                // The actors can get on in another order each time.
                let fails = |_| self.round(&fewer, is_cdev).is_ok_and(|wrong| !wrong.is_empty());
                match (0..2).any(fails) {
                    true => left = fewer,
                    false => at = end,
                }
            }
            size /= 2;
        }
        left
    }

    /// Makes the actors perform the operations.
    fn act(&self, operations: &Operations) {
        let actors: BTreeSet<_> = operations.iter().map(|(_, operation)| operation.actor).collect();
        thread::scope(|scope| {
            for actor in actors {
                let own = operations.iter().filter(move |(_, o)| o.actor == actor);
                scope.spawn(|| own.for_each(|(at, operation)| self.perform(*at, *operation)));
            }
        });
    }

    fn perform(&self, at: usize, operation: Operation) {
        if !self.wrong.lock().expect("no panic").is_empty() {
            return;
        }
        let start = Instant::now();
        let entry = Entry { operation, start, end: None };
        self.log.lock().expect("no panic").insert(at, entry);
        self.progresses();
        let mut outcome = self.world.perform(&operation);
        let end = Instant::now();
        self.progresses();
        if end - start > LIMIT {
            outcome = Outcome::Wrong(format!("it took {:?}", end - start));
        }
        if let Outcome::Wrong(why) = &outcome {
            let state = evidence::state(self.world.subject(&operation));
            self.wrong.lock().expect("no panic").push(format!("{at}. {why}\n{state}"));
        }
        if let Some(entry) = self.log.lock().expect("no panic").get_mut(&at) {
            entry.end = Some((end, outcome));
        }
    }

    fn progresses(&self) {
        *self.progress.lock().expect("no panic") = Instant::now();
    }

    /// Does `work`. Meanwhile, the users give functions back that root wants. Ends the program if
    /// nothing ends any more.
    fn watched<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let work = scope.spawn(work);
            while !work.is_finished() {
                thread::sleep(Duration::from_millis(10));
                self.world.give_back();
                if self.progress.lock().expect("no panic").elapsed() > LIMIT {
                    println!("an operation does not end:\n{}", self.logged());
                    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
                    let stack = |task: fs::DirEntry| fs::read_to_string(task.path().join("stack"));
                    tasks.for_each(|task| println!("{}", stack(task).unwrap_or_default()));
                    // The process cannot end as long as its threads do not.
                    let _ = driver::run(Command::new("busybox").args(["poweroff", "-f"]));
                }
            }
            work.join().expect("no panic")
        })
    }

    /// Returns the operations of the round that have begun, with their times and results.
    fn logged(&self) -> String {
        let log = self.log.lock().expect("no panic");
        let begun = log.values().map(|entry| entry.start).min().unwrap_or_else(Instant::now);
        let mut text = String::new();
        for (at, Entry { operation, start, end }) in log.iter() {
            let end = end.as_ref().map(|(end, outcome)| (*end - *start, outcome.text()));
            let operation = self.world.text(operation);
            let _ = writeln!(text, "{at}. {operation} at {:?}: {end:?}", *start - begun);
        }
        text
    }
}
