// SPDX-License-Identifier: GPL-2.0

//! The host's side of a session: drivers and their parameters, power states, the kernel log.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use lab::kmsg::Mark;
use lab::machine::STUB;
use lab::sysfs::{driver_path, Bdf};
use lab::{driver, wait};
use nix::errno::Errno;

use super::Session;
use crate::call::{Call, Handle, Of, Outcome, Returned, To};

/// The time limit for runtime PM to suspend an idle function.
const SUSPEND: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// Lets [`Call::Log`] read the kernel log from here on.
    pub fn watch_log(&mut self) -> Result<()> {
        self.log = Some(Mark::here()?);
        Ok(())
    }

    /// Makes a call that uses no file of vfio. Returns nothing if it cannot be made.
    pub(super) fn make_on_host(&mut self, call: &Call) -> Option<Outcome> {
        Some(match call {
            Call::Suspended(function) => {
                Ok(usize::from(self.wait_until_suspended(*function))).into()
            }
            Call::Bind(function, to) => self.bind(*function, *to)?,
            Call::Set(of, name, value) => store(&self.directory(*of)?.join(name), value),
            Call::Reload(parameters) => {
                let parameters: Vec<&str> = parameters.split_whitespace().collect();
                let loaded = self.driver.load(&parameters);
                self.text(loaded.map_or_else(|error| error.to_string(), |()| "loaded".to_owned()))
            }
            Call::State(function) => self.state(*function)?,
            Call::Config(function) => {
                self.settle(*function);
                let config = fs::read(self.function(*function)?.path().join("config"));
                Outcome::new(Returned::Value(0)).with(config.unwrap_or_default())
            }
            Call::Legacy(function) => {
                let decodes = decodes(self.function(*function)?.bdf());
                self.text(decodes.unwrap_or_else(|error| error.to_string()))
            }
            Call::Log => {
                let lines = self.log.as_mut()?.lines();
                let mut lines = lines.unwrap_or_else(|error| vec![error.to_string()]);
                // The kernel seeds its random numbers at some time, and warns of one unlocked reset.
                // The scenario bridge_lock counts these.
                let once = ["random:", "unlocked secondary bus reset"];
                lines.retain(|line| !once.iter().any(|part| line.contains(part)));
                self.text(lines.join(" | "))
            }
            _ => return None,
        })
    }

    /// Binds a function. One that is in use is left alone: its unbinding would never end.
    fn bind(&mut self, number: u8, to: To) -> Option<Outcome> {
        let function = self.function(number).filter(|_| !self.is_used(number))?;
        let name = match to {
            To::Driver => self.driver.name(),
            To::Stub => STUB,
            To::None => "\n",
        };
        let address = function.bdf().to_string();
        if let Some(bound) = function.driver() {
            let unbound = store(&driver_path(&bound).join("unbind"), &address);
            if !unbound.succeeded() {
                return Some(unbound);
            }
        }
        let set = store(&function.path().join("driver_override"), name);
        Some(if to == To::None { set } else { store(&driver_path(name).join("bind"), &address) })
    }

    fn is_used(&self, function: u8) -> bool {
        let mut devices = [Handle::DEVICE, Handle::SIBLING, Handle::AGAIN].into_iter();
        devices.any(|device| device.function() == function && self.is_open(device))
    }

    fn directory(&self, of: Of) -> Option<PathBuf> {
        Some(match of {
            Of::Bus => PathBuf::from("/sys/bus/pci"),
            Of::Driver => driver_path(self.driver.name()),
            Of::Parameters => driver::parameter_path(&self.driver.module(), ""),
            Of::Function(number) => self.function(number)?.path(),
        })
    }

    fn state(&mut self, number: u8) -> Option<Outcome> {
        self.settle(number);
        let function = self.function(number)?;
        let read = |attribute: &str| function.read(attribute).unwrap_or_default();
        let driver = function.driver().unwrap_or("unbound".to_owned());
        let (state, enabled) = (read("power_state"), read("enable"));
        let wanted = read("driver_override");
        Some(self.text(format!("{driver}, override {wanted}, {state}, enabled {enabled}")))
    }

    /// A text, in which the drivers and their modules have the same names.
    fn text(&self, text: String) -> Outcome {
        let names = [self.driver.module(), self.driver.name().to_owned()];
        // The C driver's denylist has the same name in the log of both.
        let text = text.replace("vfio-pci device denylist", "device denylist");
        Outcome::new(Returned::Text(names.iter().fold(text, |text, of| text.replace(of, "DRIVER"))))
    }

    /// Waits for runtime PM if `function` is not open: on its way through D3hot it may lose its
    /// registers.
    pub(super) fn settle(&mut self, function: u8) {
        let enabled = self.function(function).map(|of| of.read("enable").unwrap_or_default());
        if enabled.is_some_and(|enabled| enabled == "0") {
            self.wait_until_suspended(function);
        }
    }

    fn wait_until_suspended(&self, number: u8) -> bool {
        let name = self.driver.name();
        let Some(function) =
            self.function(number).filter(|of| of.driver().as_deref() == Some(name))
        else {
            return false;
        };
        let never = driver::parameter_path(&self.driver.module(), "disable_idle_d3");
        if fs::read_to_string(never).is_ok_and(|value| value.starts_with('Y')) {
            return false;
        }
        let status = || function.read("power/runtime_status").unwrap_or_default();
        wait::until(SUSPEND, status, |status| status == "suspended") == "suspended"
    }
}

/// Returns the state of a display in the VGA arbiter: `decodes=io+mem` and the like.
fn decodes(display: &Bdf) -> io::Result<String> {
    let mut arbiter = fs::OpenOptions::new().read(true).write(true).open("/dev/vga_arbiter")?;
    arbiter.write_all(format!("target PCI:{display}").as_bytes())?;
    // Each read returns the whole state.
    let mut state = [0; 1024];
    let length = arbiter.read(&mut state)?;
    let state = String::from_utf8_lossy(&state[..length]);
    let decodes = state.split(',').find(|part| part.starts_with("decodes="));
    Ok(decodes.unwrap_or("no state").to_owned())
}

/// Writes an attribute of sysfs in one system call.
fn store(path: &Path, value: &str) -> Outcome {
    let file = fs::OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    written.map(|()| 0).map_err(errno).into()
}
