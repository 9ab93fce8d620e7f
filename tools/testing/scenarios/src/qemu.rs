// SPDX-License-Identifier: GPL-2.0

//! A QEMU inside the guest with assigned functions, controlled by QMP.
//!
//! The few commands need no types, so this is not the crate qapi: it generates a type for every
//! command and event of one version of QEMU, and fails at an event that it does not know.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use lab::topology::Device;
use lab::wait;
use serde_json::{json, Value};

const PROGRAM: &str = "qemu-system-x86_64";
/// The limit for QEMU to start, and for its firmware to set up devices, under two emulations.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The port by which a machine reaches its own QEMU.
const PORT: &str = "qmp";
const PAUSE: Duration = Duration::from_millis(100);

const ARGUMENTS: &str = "-machine q35,accel=tcg -m 64M -nodefaults -display none \
    -trace vfio_pci_hot_reset*";

// QEMU's trace events, each a line.
const HOT_RESET: &str = "vfio_pci_hot_reset ";
const AFFECTED: &str = "vfio_pci_hot_reset_dep_devices ";
const RESULT: &str = "vfio_pci_hot_reset_result ";

/// The interface of the kernel by which QEMU opens functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Groups,
    Iommufd,
}

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    qmp: Qmp,
    trace: PathBuf,
}

#[derive(Debug)]
struct Process(Child);

/// A connection to the control of a QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<File>,
    /// The number of RESET events.
    resets: usize,
}

/// An assigned function as the firmware sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    id: String,
    /// Vendor and device ID.
    pub ids: (u64, u64),
    /// The number of BARs with an address.
    pub bars: usize,
}

/// A hot reset in QEMU's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotReset {
    /// Whether it is for several assigned functions, or for one that is alone.
    pub multi: bool,
    /// How many functions it would affect. QEMU stops at a function that forbids it.
    pub affected: usize,
    /// `Success` or an error; `None` if QEMU did not request it from the kernel.
    pub result: Option<String>,
}

impl Qemu {
    /// Starts QEMU with `functions` assigned. Its messages are in `NAME.log` in `results`, its
    /// trace in `NAME.trace`.
    pub fn start(functions: &[Device], results: &Path, name: &str) -> Result<Self> {
        Self::start_by(Access::Groups, functions, results, name, &[])
    }

    /// The same with more arguments, and by either interface.
    pub fn start_by(
        access: Access,
        functions: &[Device],
        results: &Path,
        name: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let log = results.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| log.display().to_string())?;
        let trace = results.join(format!("{name}.trace"));
        let socket = std::env::temp_dir().join(format!("{name}.{}.qmp", std::process::id()));
        let mut command = Command::new(PROGRAM);
        command
            .args(ARGUMENTS.split_whitespace())
            .args(arguments)
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .arg("-D")
            .arg(&trace);
        let by = match access {
            Access::Groups => "",
            Access::Iommufd => {
                command.args(["-object", "iommufd,id=iommufd0"]);
                ",iommufd=iommufd0"
            }
        };
        for (i, function) in functions.iter().enumerate() {
            let device = format!("vfio-pci,host={},id=assigned{i}{by}", function.bdf());
            command.args(["-device", &device]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .context(PROGRAM)?;
        let mut process = Process(child);
        let qmp = process.connect(&socket);
        let qmp = qmp.with_context(|| format!("see {}", log.display()))?;
        // The next QEMU needs the name.
        fs::remove_file(&socket)?;
        Ok(Qemu {
            process,
            qmp,
            trace,
        })
    }

    /// Waits until the firmware has set up BARs of every assigned function.
    pub fn wait_seen(&mut self, count: usize) -> Result<Vec<Seen>> {
        let ready = |seen: &[Seen]| seen.len() == count && seen.iter().all(|seen| seen.bars > 0);
        let done = |seen: &Result<Vec<Seen>>| seen.as_ref().map_or(true, |seen| ready(seen));
        let look = || {
            // An answer takes time of the processor on which the firmware runs.
            thread::sleep(PAUSE);
            self.seen()
        };
        let seen = wait::until(LIMIT, look, done)?;
        ensure!(
            ready(&seen),
            "the firmware did not set up {count}: {seen:?}"
        );
        Ok(seen)
    }

    /// Returns the assigned functions in the order of [`Qemu::start`].
    pub fn seen(&mut self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        collect_seen(&self.qmp.execute("query-pci", json!({}))?, &mut seen);
        seen.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(seen)
    }

    /// Resets the machine, as a reboot of its guest does, and stops its processor before the first
    /// instruction of the firmware.
    pub fn reset(&mut self) -> Result<()> {
        self.qmp.execute("stop", json!({}))?;
        let before = self.qmp.resets;
        self.qmp.execute("system_reset", json!({}))?;
        while self.qmp.resets == before {
            self.qmp.receive()?;
        }
        Ok(())
    }

    /// Returns how often the machine was reset, by [`Qemu::reset`] or by its guest.
    pub fn resets(&self) -> usize {
        self.qmp.resets
    }

    /// Lets the processor run again after [`Qemu::reset`].
    pub fn resume(&mut self) -> Result<()> {
        self.qmp.execute("cont", json!({})).map(drop)
    }

    /// Returns all hot resets so far.
    pub fn hot_resets(&self) -> Result<Vec<HotReset>> {
        parse_hot_resets(&fs::read_to_string(&self.trace)?)
            .with_context(|| self.trace.display().to_string())
    }

    /// Makes QEMU quit, and waits for its end.
    pub fn quit(mut self) -> Result<ExitStatus> {
        self.qmp.execute("quit", json!({}))?;
        Ok(self.process.0.wait()?)
    }
}

impl Process {
    fn connect(&mut self, socket: &Path) -> Result<Qmp> {
        let connect = || match self.0.try_wait() {
            Ok(Some(status)) => Err(anyhow!("{PROGRAM} did not start: {status}")),
            _ => Ok(UnixStream::connect(socket)),
        };
        let stream = wait::until(LIMIT, connect, |stream| !matches!(stream, Ok(Err(_))))?;
        Qmp::greet(stream.context("connecting to QMP")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qmp {
    fn new(stream: File) -> Self {
        Qmp {
            stream: BufReader::new(stream),
            resets: 0,
        }
    }

    fn greet(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut qmp = Qmp::new(File::from(OwnedFd::from(stream)));
        let greeting = qmp.receive()?;
        ensure!(greeting.get("QMP").is_some(), "QMP began with {greeting}");
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Connects to the QEMU that this machine runs in, by the port that its topology gives it.
    pub fn of_this_machine() -> Result<Self> {
        for port in fs::read_dir("/sys/class/virtio-ports")? {
            let port = port?;
            if fs::read_to_string(port.path().join("name"))?.trim_end() != PORT {
                continue;
            }
            let path = Path::new("/dev").join(port.file_name());
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let mut qmp = Qmp::new(file.with_context(|| path.display().to_string())?);
            // Only the first of the programs in this machine finds the greeting before its answer,
            // and no error.
            let _ = qmp.execute("qmp_capabilities", json!({}));
            return Ok(qmp);
        }
        bail!("the machine has no port '{PORT}'");
    }

    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = format!(
            "{}\n",
            json!({ "execute": command, "arguments": arguments })
        );
        let written = self.stream.get_mut().write_all(line.as_bytes());
        written.with_context(|| format!("sending {command}"))?;
        loop {
            let mut reply = self.receive()?;
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            let error = reply.get("error");
            ensure!(error.is_none(), "{command} failed: {reply}");
        }
    }

    /// Receives a reply or an event.
    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        let length = read.context("reading from QMP")?;
        ensure!(length > 0, "QEMU closed its QMP connection");
        let message: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        self.resets += usize::from(message["event"] == "RESET");
        Ok(message)
    }
}

/// Finds assigned functions in the answer to `query-pci`: buses have devices, and bridges among
/// these have devices, too.
fn collect_seen(value: &Value, seen: &mut Vec<Seen>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect_seen(value, seen)),
        Value::Object(members) => {
            let id = value["qdev_id"].as_str().unwrap_or("");
            if id.starts_with("assigned") {
                let regions = value["regions"].as_array().into_iter().flatten();
                // The address is -1 if a BAR is not mapped.
                let mapped = |region: &&Value| region["address"].as_i64().is_some_and(|a| a > 0);
                let number = |key| value["id"][key].as_u64().unwrap_or(0);
                seen.push(Seen {
                    id: id.to_owned(),
                    ids: (number("vendor"), number("device")),
                    bars: regions.filter(mapped).count(),
                });
            }
            members.values().for_each(|value| collect_seen(value, seen));
        }
        _ => {}
    }
}

/// Parses QEMU's trace: a line for each hot reset, then lines for the functions that it affects
/// and for its result.
fn parse_hot_resets(text: &str) -> Result<Vec<HotReset>> {
    let mut found: Vec<HotReset> = Vec::new();
    for line in text.lines() {
        let odd = || anyhow!("the line is out of place: '{line}'");
        if let Some(rest) = line.strip_prefix(HOT_RESET) {
            found.push(HotReset {
                multi: match rest.rsplit(' ').next() {
                    Some("multi") => true,
                    Some("one") => false,
                    _ => return Err(odd()),
                },
                affected: 0,
                result: None,
            });
        } else if line.starts_with(AFFECTED) {
            found.last_mut().ok_or_else(odd)?.affected += 1;
        } else if line.starts_with(RESULT) {
            let (_, result) = line.split_once(" hot reset: ").ok_or_else(odd)?;
            found.last_mut().ok_or_else(odd)?.result = Some(result.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
vfio_pci_hot_reset  (0000:01:00.0) multi
vfio_pci_hot_reset_has_dep_devices 0000:01:00.0: hot reset dependent devices:
vfio_pci_hot_reset_dep_devices \t0000:01:00.0 group 9
vfio_pci_hot_reset_dep_devices \t0000:01:00.1 group 9
vfio_pci_hot_reset_result 0000:01:00.0 hot reset: Invalid argument
vfio_pci_hot_reset  (0000:01:00.0) one
vfio_pci_hot_reset_has_dep_devices 0000:01:00.0: hot reset dependent devices:
vfio_pci_hot_reset_dep_devices \t0000:01:00.0 group 9
";

    #[test]
    fn hot_resets() {
        let found = parse_hot_resets(TRACE).expect("a valid trace");
        let expected = [
            HotReset {
                multi: true,
                affected: 2,
                result: Some("Invalid argument".to_owned()),
            },
            HotReset {
                multi: false,
                affected: 1,
                result: None,
            },
        ];
        assert_eq!(found, expected);
        assert!(parse_hot_resets("").expect("an empty trace").is_empty());
        let no_beginning = TRACE.lines().last().expect("a line");
        assert!(parse_hot_resets(no_beginning).is_err());
    }

    #[test]
    fn assigned_functions() {
        let answer = json!([{"bus": 0, "devices": [
            {"qdev_id": "", "id": {"device": 1, "vendor": 2}, "regions": []},
            {"qdev_id": "assigned1", "id": {"device": 4165, "vendor": 6900}, "regions": [
                {"bar": 0, "address": 4_261_412_864_u64}, {"bar": 4, "address": -1}]},
            {"qdev_id": "port", "id": {"device": 1, "vendor": 2}, "regions": [],
             "pci_bridge": {"devices": [
                {"qdev_id": "assigned0", "id": {"device": 1, "vendor": 2}, "regions": []}]}},
        ]}]);
        let mut seen = Vec::new();
        collect_seen(&answer, &mut seen);
        assert_eq!((seen.len(), seen[0].ids), (2, (6900, 4165)));
        assert_eq!(seen[0].bars, 1);
        assert_eq!((seen[1].id.as_str(), seen[1].bars), ("assigned0", 0));
    }
}
