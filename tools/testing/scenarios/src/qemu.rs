// SPDX-License-Identifier: GPL-2.0

//! A QEMU inside the guest with assigned functions, controlled by QMP.
//!
//! The few commands need no types, so this is not the crate qapi: it generates a type for every
//! command and event of one version of QEMU, and fails at an event that it does not know.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use lab::topology::Device;
use lab::wait;
use serde_json::{json, Value};

const PROGRAM: &str = "qemu-system-x86_64";
/// The limit for QEMU to start under two emulations.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The port by which a machine reaches its own QEMU.
const PORT: &str = "qmp";

const ARGUMENTS: &str = "-machine q35,accel=tcg -m 64M -nodefaults -display none";

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

impl Qemu {
    /// Starts QEMU with `functions` assigned. Its messages are in `NAME.log` in `results`.
    pub fn start(
        access: Access,
        functions: &[Device],
        results: &Path,
        name: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let log = results.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| log.display().to_string())?;
        let socket = std::env::temp_dir().join(format!("{name}.{}.qmp", std::process::id()));
        let mut command = Command::new(PROGRAM);
        command
            .args(ARGUMENTS.split_whitespace())
            .args(arguments)
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()));
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
        Ok(Qemu { process, qmp })
    }

    /// Resets the machine, as a reboot of its guest does.
    pub fn reset(&mut self) -> Result<()> {
        let before = self.qmp.resets;
        self.qmp.execute("system_reset", json!({}))?;
        while self.qmp.resets == before {
            self.qmp.receive()?;
        }
        Ok(())
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
        Qmp { stream: BufReader::new(stream), resets: 0 }
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
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
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
