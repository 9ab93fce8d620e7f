// SPDX-License-Identifier: GPL-2.0

//! The start of many containers, each of which gets a VF.
//!
//! A process stands for a container. All bind, open, map and close their functions at once. Threads
//! of one process would share its memory map and table of files, and wait for each other there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use lab::sriov::VirtualFunctions;
use lab::sysfs::Bdf;
use lab::topology::Device;
use lab::trace::seconds;
use lab::vfio::User;
use nix::time::{clock_gettime, ClockId};
use raw::Mapping;
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;

use super::measure::{nanoseconds, times, wait_rested, Sample};
use super::{Bench, Competitor, C, OURS};
use crate::together::{timed, Times};

/// The option by which a program runs [`container`].
pub const CONTAINER: &str = "container";

const NUMBERS: [usize; 2] = [10, 100];
const MEMORY: NonZeroUsize = NonZeroUsize::new(4 << 20).unwrap();
const IOVA: u64 = 1 << 32;

/// The process of a container, with a pipe for its orders and one for its answers.
struct Container(Child, ChildStdin, BufReader<ChildStdout>);

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let pf = bench.topology.device("nvme.pf")?;
    let enabled = VirtualFunctions::enable(&pf, NUMBERS[1])?;
    let vfs = enabled.devices();
    bench.in_turns(&[C, OURS], |_, competitor| {
        let samples = NUMBERS.map(|number| start_and_stop(competitor, &vfs[..number]));
        Ok(samples.into_iter().collect::<Result<Vec<_>>>()?.concat())
    })
}

fn start_and_stop(competitor: &Competitor, vfs: &[Device]) -> Result<Vec<(String, Sample)>> {
    let mut containers = vfs.iter().map(Container::start).collect::<Result<Vec<_>>>()?;
    let mut samples: Vec<(String, Sample)> = Vec::new();
    let before = kernel_memory()?;
    // Functions are opened when they were just bound, when they are clean, and when root has woken
    // them since their reset.
    for (name, order) in [
        ("bind", format!("bind {}", competitor.driver.name())),
        ("first_open", "open".to_owned()),
        ("map", "map".to_owned()),
        ("close", "close".to_owned()),
        ("", "rest".to_owned()),
        ("clean_open", "open".to_owned()),
        ("clean_close", "close".to_owned()),
        ("", "rest".to_owned()),
        ("", "touch".to_owned()),
        ("", "rest".to_owned()),
        ("touched_open", "open".to_owned()),
        ("touched_close", "close".to_owned()),
        ("", "rest".to_owned()),
        ("unbind", "unbind".to_owned()),
    ] {
        let busy = busy()?;
        let done = Container::all(&mut containers, &order).context(order)?;
        let busy = nanoseconds(self::busy()?.saturating_sub(busy));
        match samples.last_mut() {
            // What follows a call in the background belongs to it.
            Some((_, last)) if name.is_empty() => *last.entry("busy_ns").or_default() += busy,
            _ => {
                let memory = kernel_memory()?.saturating_sub(before);
                let mut sample = times(&done);
                // CAST: The machine has 64 bits.
                sample.extend([("busy_ns", busy), ("memory", memory / vfs.len() as u64)]);
                samples.push((format!("containers_{}_{name}", vfs.len()), sample));
            }
        }
    }
    for Container(mut process, orders, _) in containers {
        drop(orders);
        process.wait()?;
    }
    Ok(samples)
}

/// Returns the unmovable memory of the kernel, in bytes.
fn kernel_memory() -> Result<u64> {
    for cache in fs::read_dir("/sys/kernel/slab").context("slab")? {
        // Not each cache can be shrunk.
        let _ = fs::write(cache?.path().join("shrink"), "1");
    }
    let text = fs::read_to_string("/proc/meminfo").context("meminfo")?;
    let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let counts = |line: &&str| line.starts_with("SUnreclaim:") || line.starts_with("Percpu:");
    Ok(text.lines().filter(counts).filter_map(kilobytes).sum::<u64>() << 10)
}

/// Returns the time that the processor, of which there is one, has been busy since boot.
fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/uptime").context("uptime")?;
    let mut times = text.split_whitespace().filter_map(seconds);
    let (up, idle) = (times.next(), times.next());
    Ok(up.context("uptime")?.saturating_sub(idle.context("uptime")?))
}

impl Container {
    fn start(vf: &Device) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(format!("--{CONTAINER}={}", vf.bdf()));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take().context("a pipe")?;
        let answers = BufReader::new(process.stdout.take().context("a pipe")?);
        let mut container = Container(process, orders, answers);
        container.answer()?;
        Ok(container)
    }

    /// Lets all obey at once.
    fn all(containers: &mut [Self], order: &str) -> Result<Vec<Times>> {
        let delay = Duration::from_millis(50 + 2 * containers.len() as u64);
        let start = now()? + delay;
        for Container(_, orders, _) in &mut *containers {
            writeln!(orders, "{} {order}", nanoseconds(start))?;
        }
        containers.iter_mut().map(Self::answer).collect()
    }

    fn answer(&mut self) -> Result<Times> {
        let mut line = String::new();
        self.2.read_line(&mut line)?;
        let numbers = line.split_whitespace().map(|number| Ok(number.parse()?));
        let times: Vec<Duration> = numbers
            .map(|number: Result<u64>| number.map(Duration::from_nanos))
            .collect::<Result<_>>()?;
        let [start, end, processor] = times[..] else { bail!("a container has failed") };
        Ok(Times { start, end, processor })
    }
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// Does with the function at `address` what standard input orders, and prints its times.
pub fn container(address: &str) -> Result<()> {
    let function = Device::new("vf", &Bdf::parse(address)?);
    let (mut open, mut mapped) = (None, None);
    println!("0 0 0");
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let start = Duration::from_nanos(words.next().unwrap_or_default().parse()?);
        thread::sleep(start.saturating_sub(now()?));
        let ((), times) = timed(|| {
            match (words.next().unwrap_or_default(), words.next()) {
                ("bind", Some(driver)) => function.bind(driver)?,
                ("open", _) => {
                    let user = User::with_iommufd()?;
                    open = Some((user.device(&function)?, user));
                }
                ("map", _) => {
                    let (device, user) = open.as_ref().context("it is not open")?;
                    let memory = Mapping::anonymous(MEMORY)?;
                    user.map(&memory, IOVA)?;
                    let bar = Mapping::region(device, VFIO_PCI_BAR0_REGION_INDEX)?;
                    bar.read();
                    mapped = Some((memory, bar));
                }
                ("close", _) => {
                    open = None;
                    mapped = None;
                }
                ("touch", _) => {
                    function.write("power/control", "on")?;
                    function.write("power/control", "auto")?;
                }
                ("rest", _) => wait_rested(&function)?,
                ("unbind", _) => function.release()?,
                (order, _) => bail!("there is no order '{order}'"),
            }
            Ok(())
        })?;
        let times = [times.start, times.end, times.processor].map(nanoseconds);
        println!("{} {} {}", times[0], times[1], times[2]);
    }
    Ok(())
}
