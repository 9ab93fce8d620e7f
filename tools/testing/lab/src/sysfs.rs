// SPDX-License-Identifier: GPL-2.0

//! A PCI function in sysfs, and binding it to a driver by `driver_override`.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Error, Result};
use serde::Deserialize;

use crate::wait;

const PCI_BUS: &str = "/sys/bus/pci";

// linux/pci_regs.h
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 0x10;
const CAPABILITY_LIST: usize = 0x34;
pub const CAPABILITY_PM: u8 = 0x01;

/// The full address of a PCI function, such as `0000:01:00.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Bdf(String);

impl Bdf {
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.to_ascii_lowercase();
        let numbers: Vec<u32> = text
            .split([':', '.'])
            .filter_map(|number| u32::from_str_radix(number, 16).ok())
            .collect();
        match numbers[..] {
            [a, b, c, d @ 0..=7] if format!("{a:04x}:{b:02x}:{c:02x}.{d:x}") == text => {
                Ok(Bdf(text))
            }
            _ => bail!("'{text}' is not a PCI address like 0000:01:00.0"),
        }
    }

    /// Returns domain and bus, as the kernel names a bus: `0000:01`.
    pub fn bus(&self) -> &str {
        &self.0[..7]
    }

    /// Returns domain, bus and device, as the kernel names a slot: `0000:01:00`.
    pub fn slot(&self) -> &str {
        &self.0[..10]
    }

    /// Returns domain, bus, device and function.
    pub fn numbers(&self) -> [u32; 4] {
        let number = |digits: &str| u32::from_str_radix(digits, 16).expect("an address has digits");
        [&self.0[..4], &self.0[5..7], &self.0[8..10], &self.0[11..]].map(number)
    }

    pub fn path(&self) -> PathBuf {
        Path::new(PCI_BUS).join("devices").join(&self.0)
    }

    /// Reads an attribute, without the newline at its end.
    pub fn read(&self, attribute: &str) -> Result<String> {
        let path = self.path().join(attribute);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes an attribute in one system call.
    pub fn write(&self, attribute: &str, value: &str) -> Result<()> {
        write_attribute(&self.path().join(attribute), value)
    }

    /// Returns the last part of the path that a link points to.
    pub fn link(&self, name: &str) -> Result<String> {
        link(&self.path().join(name))
    }

    pub fn driver(&self) -> Option<String> {
        self.link("driver").ok()
    }

    pub fn iommu_group(&self) -> Result<String> {
        self.link("iommu_group")
    }

    /// Waits until the kernel believes the function to be in a power state, such as `D3hot`, as
    /// long as runtime PM may take. Returns the last state.
    pub fn wait_power_state(&self, state: &str) -> Result<String> {
        self.comes_to("power_state", state)
    }

    /// Waits until an attribute has this value. Returns the last one.
    pub fn comes_to(&self, attribute: &str, value: &str) -> Result<String> {
        let is = |now: &Result<String>| now.as_ref().is_ok_and(|now| now == value);
        wait::until(wait::SETTLE, || self.read(attribute), is)
    }

    /// Reads configuration space. A function in D3hot answers and stays asleep.
    pub fn config(&self) -> Result<Vec<u8>> {
        let path = self.path().join("config");
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// Changes 16 bits of configuration space. Returns those that it had.
    pub fn change_config(&self, at: u64, change: impl FnOnce(u16) -> u16) -> Result<u16> {
        let path = self.path().join("config");
        let config = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = [0; 2];
        config.read_exact_at(&mut bytes, at)?;
        let before = u16::from_le_bytes(bytes);
        config.write_all_at(&change(before).to_le_bytes(), at)?;
        Ok(before)
    }

    /// Returns vendor and device ID, in hexadecimal without a prefix.
    pub fn id(&self) -> Result<(String, String)> {
        let hex = |text: String| text.trim_start_matches("0x").to_owned();
        Ok((hex(self.read("vendor")?), hex(self.read("device")?)))
    }

    /// Unbinds the function from its driver, if it has one. Blocks as long as the driver's remove.
    pub fn unbind(&self) -> Result<()> {
        match self.driver() {
            Some(driver) => write_attribute(&driver_path(&driver).join("unbind"), &self.0),
            None => Ok(()),
        }
    }

    /// Sets `driver_override`, or clears it with `None`.
    pub fn set_override(&self, driver: Option<&str>) -> Result<()> {
        self.write("driver_override", driver.unwrap_or("\n"))
    }

    /// Unbinds the function and binds it to `driver` by `driver_override`. The errno of a failure
    /// is that of the driver's probe.
    pub fn bind(&self, driver: &str) -> Result<()> {
        self.unbind()?;
        self.set_override(Some(driver))?;
        self.attach(driver)
    }

    /// Binds the function to `driver`, which its `driver_override` names already.
    pub fn attach(&self, driver: &str) -> Result<()> {
        write_attribute(&driver_path(driver).join("bind"), &self.0)
    }

    /// Unbinds the function and clears its override, without offering it to a driver.
    pub fn release(&self) -> Result<()> {
        self.unbind()?;
        self.set_override(None)
    }

    /// Releases the function and binds it to the driver that it has at boot.
    pub fn reprobe(&self) -> Result<()> {
        self.release()?;
        write_attribute(&Path::new(PCI_BUS).join("drivers_probe"), &self.0)
    }
}

impl TryFrom<String> for Bdf {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Bdf::parse(&text)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the driver's directory in sysfs, which exists while the driver is registered.
pub fn driver_path(driver: &str) -> PathBuf {
    Path::new(PCI_BUS).join("drivers").join(driver)
}

/// Returns the last part of the path that a link points to.
pub fn link(path: &Path) -> Result<String> {
    let target = fs::read_link(path).with_context(|| path.display().to_string())?;
    let name = target.file_name().unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

pub fn all_functions() -> Result<Vec<Bdf>> {
    let path = Path::new(PCI_BUS).join("devices");
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
        found.push(Bdf::parse(&entry?.file_name().to_string_lossy())?);
    }
    found.sort();
    Ok(found)
}

/// Makes the kernel look for functions of a bus that it does not know. Where it numbers the buses
/// itself, as on arm64, a scan of all buses makes those below bridges unreachable for a moment.
pub fn rescan(bus: &str) -> Result<()> {
    write_attribute(&Path::new("/sys/class/pci_bus").join(bus).join("rescan"), "1")
}

/// Writes an attribute in one system call, so that an errno is that of its store function.
pub fn write_attribute(path: &Path, value: &str) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(value.as_bytes()))
        .with_context(|| format!("writing '{}' to {}", value.trim_end(), path.display()))
}

/// Returns the place of the capability `id` in configuration space.
pub fn capability(config: &[u8], id: u8) -> Option<u8> {
    let byte = |at: usize| config.get(at).copied().unwrap_or(0);
    let next = |at: usize| Some(byte(at) & !3).filter(|next| *next != 0);
    let first = next(CAPABILITY_LIST).filter(|_| byte(STATUS) & STATUS_CAPABILITIES != 0);
    let list = std::iter::successors(first, |at| next(usize::from(*at) + 1));
    // A capability has four bytes or more. A list longer than the space is circular.
    list.take(64).find(|at| byte(usize::from(*at)) == id)
}
