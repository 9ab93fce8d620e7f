// SPDX-License-Identifier: GPL-2.0

//! A QEMU inside the guest, with functions assigned to it, spoken to over QMP.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use serde_json::Value;

use crate::error::Doing;
use crate::topology::Device;
use crate::Error;
use crate::Result;

const PROGRAM: &str = "qemu-system-x86_64";
/// How long an emulated machine in an emulated machine may take to start, and its firmware to set
/// up its devices.
const LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);
/// What QEMU is to trace: a line for each event, which begins with its name.
const TRACED: &str = "vfio_pci_hot_reset*";
const HOT_RESET: &str = "vfio_pci_hot_reset ";
const AFFECTED: &str = "vfio_pci_hot_reset_dep_devices ";
const RESULT: &str = "vfio_pci_hot_reset_result ";

/// A running QEMU; dropping it kills it.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    qmp: Option<Qmp>,
    trace: PathBuf,
}

#[derive(Debug)]
struct Qmp {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
    /// How many events have come which say that the machine was reset.
    resets: usize,
}

/// An assigned function as QEMU's own guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The name that the function was given on the command line.
    pub id: String,
    /// Vendor and device ID.
    pub ids: (u64, u64),
    /// How many BARs the firmware has given an address.
    pub bars: usize,
}

/// A hot reset that QEMU wanted, as it traced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotReset {
    /// Whether it is one for several assigned functions, or for one that is alone.
    pub multi: bool,
    /// How many functions it would affect; fewer, if QEMU gave up when it came to one.
    pub affected: usize,
    /// What came of it, `Success` or an error; nothing, if QEMU did not ask the kernel for it.
    pub result: Option<String>,
}

impl Qemu {
    /// Starts QEMU with `functions` assigned; its messages go to `NAME.log` in `results`, and what
    /// it traces of hot resets to `NAME.trace`.
    pub fn start(functions: &[Device], results: &Path, name: &str) -> Result<Self> {
        let log = results.join(format!("{name}.log"));
        let log_file = File::create(&log).doing(format!("creating {}", log.display()))?;
        let errors = log_file
            .try_clone()
            .doing(format!("opening {} again", log.display()))?;
        let trace = results.join(format!("{name}.trace"));
        let socket = std::env::temp_dir().join(format!("{name}.{}.qmp", std::process::id()));
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "-machine",
                "q35,accel=tcg",
                "-m",
                "64M",
                "-nodefaults",
                "-display",
                "none",
            ])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .args(["-trace", TRACED, "-D"])
            .arg(&trace);
        for (i, function) in functions.iter().enumerate() {
            command
                .arg("-device")
                .arg(format!("vfio-pci,host={},id=assigned{i}", function.bdf()));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log_file)
            .stderr(errors)
            .spawn()
            .doing(format!("starting {PROGRAM}"))?;
        let mut qemu = Qemu {
            child,
            qmp: None,
            trace,
        };
        let connected = qemu.connect(&socket);
        let qmp = connected
            .map_err(|e| Error::new(format!("{e} (its messages are in {})", log.display())))?;
        qemu.qmp = Some(qmp);
        // Nobody else connects, and the name would be in the way of the next QEMU.
        std::fs::remove_file(&socket).doing(format!("removing {}", socket.display()))?;
        Ok(qemu)
    }

    fn connect(&mut self, socket: &Path) -> Result<Qmp> {
        let start = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(socket) {
                return Qmp::greet(stream);
            }
            if let Some(status) = self
                .child
                .try_wait()
                .doing(format!("waiting for {PROGRAM}"))?
            {
                return Err(Error::new(format!("{PROGRAM} did not start: {status}")));
            }
            if start.elapsed() > LIMIT {
                return Err(Error::new(format!(
                    "{PROGRAM} does not answer on its QMP socket"
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the firmware has given addresses to BARs of every assigned function; returns
    /// what it then sees of them.
    pub fn wait_seen(&mut self, count: usize) -> Result<Vec<Seen>> {
        let start = Instant::now();
        loop {
            let seen = self.seen()?;
            if seen.len() == count && seen.iter().all(|function| function.bars > 0) {
                return Ok(seen);
            }
            if start.elapsed() > LIMIT {
                return Err(Error::new(format!(
                    "the firmware has not set up the {count} assigned functions after {} s: {seen:?}",
                    LIMIT.as_secs()
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// The assigned functions on QEMU's PCI buses as they are now, in the order in which they
    /// were given to [`Qemu::start`].
    pub fn seen(&mut self) -> Result<Vec<Seen>> {
        let buses = self.qmp()?.execute("query-pci")?;
        let mut seen = Vec::new();
        collect_seen(&buses, &mut seen);
        seen.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(seen)
    }

    /// Resets QEMU's machine, which is what a reboot of its guest comes to. Its processor stands
    /// still when this is done, before the first instruction of the firmware.
    pub fn reset(&mut self) -> Result<()> {
        let qmp = self.qmp()?;
        qmp.execute("stop")?;
        let before = qmp.resets;
        qmp.execute("system_reset")?;
        while qmp.resets == before {
            let message = qmp.receive()?;
            qmp.note_event(&message)?;
        }
        Ok(())
    }

    /// How often the machine has been reset since QEMU was started: by [`Qemu::reset`], or by
    /// what runs in it.
    pub fn resets(&mut self) -> Result<usize> {
        Ok(self.qmp()?.resets)
    }

    /// Lets the processor go on after [`Qemu::reset`].
    pub fn resume(&mut self) -> Result<()> {
        self.qmp()?.execute("cont").map(drop)
    }

    /// The hot resets that QEMU has wanted so far.
    pub fn hot_resets(&self) -> Result<Vec<HotReset>> {
        let path = &self.trace;
        let text = fs::read_to_string(path).doing(format!("reading {}", path.display()))?;
        parse_hot_resets(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))
    }

    /// Ends QEMU as SIGKILL does, in the midst of whatever it is doing.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill().doing(format!("killing {PROGRAM}"))?;
        self.child.wait().doing(format!("waiting for {PROGRAM}"))
    }

    /// Has QEMU quit, and waits until it has.
    pub fn quit(mut self) -> Result<ExitStatus> {
        self.qmp()?.execute("quit")?;
        self.child.wait().doing(format!("waiting for {PROGRAM}"))
    }

    fn qmp(&mut self) -> Result<&mut Qmp> {
        self.qmp
            .as_mut()
            .ok_or_else(|| Error::new(format!("{PROGRAM} has no QMP connection")))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qmp {
    fn greet(stream: UnixStream) -> Result<Self> {
        stream
            .set_read_timeout(Some(LIMIT))
            .doing("setting the QMP socket's time limit")?;
        let reader = stream.try_clone().doing("opening the QMP socket again")?;
        let mut qmp = Qmp {
            stream,
            replies: BufReader::new(reader),
            resets: 0,
        };
        let greeting = qmp.receive()?;
        if greeting.get("QMP").is_none() {
            return Err(Error::new(format!("QMP began with {greeting}")));
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    fn execute(&mut self, command: &str) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.stream
            .write_all(line.as_bytes())
            .doing(format!("sending {command} over QMP"))?;
        loop {
            let mut reply = self.receive()?;
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = reply.get("error") {
                return Err(Error::new(format!("QMP {command} failed: {error}")));
            }
            self.note_event(&reply)?;
        }
    }

    fn note_event(&mut self, message: &Value) -> Result<()> {
        let name = message.get("event").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::new(format!("QMP sent no event: {message}")))?;
        self.resets += usize::from(name == "RESET");
        Ok(())
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let length = self
            .replies
            .read_line(&mut line)
            .doing("reading from QMP")?;
        if length == 0 {
            return Err(Error::new("QMP ended: QEMU has closed the connection"));
        }
        serde_json::from_str(&line).map_err(|e| Error::new(format!("QMP sent no JSON: {e}")))
    }
}

/// Finds assigned functions anywhere in the answer to `query-pci`: devices are in lists of buses,
/// and bridges have lists of devices of their own.
fn collect_seen(value: &Value, seen: &mut Vec<Seen>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect_seen(value, seen)),
        Value::Object(members) => {
            let id = members.get("qdev_id").and_then(Value::as_str).unwrap_or("");
            if id.starts_with("assigned") {
                let regions = members.get("regions").and_then(Value::as_array);
                let bars = regions
                    .into_iter()
                    .flatten()
                    .filter(|r| has_address(r))
                    .count();
                let number = |key: &str| members["id"].get(key).and_then(Value::as_u64);
                seen.push(Seen {
                    id: id.to_owned(),
                    ids: (number("vendor").unwrap_or(0), number("device").unwrap_or(0)),
                    bars,
                });
            }
            members.values().for_each(|value| collect_seen(value, seen));
        }
        _ => {}
    }
}

/// QEMU shows -1 for a BAR that is not mapped.
fn has_address(region: &Value) -> bool {
    region
        .get("address")
        .and_then(Value::as_i64)
        .is_some_and(|address| address > 0)
}

/// Finds hot resets in QEMU's trace: each begins with a line, and lines for what it would affect
/// and for its result follow, if it comes so far.
fn parse_hot_resets(text: &str) -> Result<Vec<HotReset>> {
    let mut found: Vec<HotReset> = Vec::new();
    for line in text.lines() {
        let odd = || Error::new(format!("QEMU's trace has a line out of place: '{line}'"));
        if let Some(rest) = line.strip_prefix(HOT_RESET) {
            let multi = match rest.rsplit(' ').next() {
                Some("multi") => true,
                Some("one") => false,
                _ => return Err(odd()),
            };
            found.push(HotReset {
                multi,
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
    fn hot_resets_are_found() {
        let found = parse_hot_resets(TRACE).expect("a valid trace");
        let expected = [
            HotReset {
                multi: true,
                affected: 2,
                result: Some("Invalid argument".into()),
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
    fn assigned_functions_are_found() {
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
        assert_eq!(seen.len(), 2);
        assert_eq!(
            seen[0],
            Seen {
                id: "assigned1".into(),
                ids: (6900, 4165),
                bars: 1
            }
        );
        assert_eq!(seen[1].bars, 0);
    }
}
