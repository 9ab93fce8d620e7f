// SPDX-License-Identifier: GPL-2.0

//! A PCI function as sysfs shows it, and binding it to a driver by `driver_override`.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Doing;
use crate::wait;
use crate::Error;
use crate::Result;

const PCI_BUS: &str = "/sys/bus/pci";

/// Places and values in a function's configuration space (`linux/pci_regs.h`).
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 0x10;
const CAPABILITY_LIST: usize = 0x34;
const CAPABILITY_PM: u8 = 0x01;

/// The full address of a PCI function: domain, bus, device, function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(String);

impl Bdf {
    /// Parses an address of the form `0000:01:00.0`.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = |s: &str, len: usize| s.len() == len && u32::from_str_radix(s, 16).is_ok();
        let valid = match text.split([':', '.']).collect::<Vec<_>>()[..] {
            [domain, bus, device, function] => {
                hex(domain, 4)
                    && hex(bus, 2)
                    && hex(device, 2)
                    && hex(function, 1)
                    && text.as_bytes()[4] == b':'
                    && text.as_bytes()[10] == b'.'
            }
            _ => false,
        };
        if !valid {
            return Err(Error::new(format!(
                "'{text}' is not a PCI address like 0000:01:00.0"
            )));
        }
        Ok(Bdf(text.to_ascii_lowercase()))
    }

    /// Domain and bus number, as the kernel names a bus: `0000:01`.
    pub fn bus(&self) -> &str {
        &self.0[..7]
    }

    /// Domain, bus and device number, as the kernel names a slot: `0000:01:00`.
    pub fn slot(&self) -> &str {
        &self.0[..10]
    }

    /// Domain, bus, device and function.
    pub fn numbers(&self) -> [u32; 4] {
        let number = |digits: &str| u32::from_str_radix(digits, 16).expect("these are digits");
        [
            number(&self.0[..4]),
            number(&self.0[5..7]),
            number(&self.0[8..10]),
            number(&self.0[11..]),
        ]
    }

    /// The device's directory in sysfs.
    pub fn path(&self) -> PathBuf {
        Path::new(PCI_BUS).join("devices").join(&self.0)
    }

    /// One attribute, without the newline at its end.
    pub fn read(&self, attribute: &str) -> Result<String> {
        let path = self.path().join(attribute);
        let text = fs::read_to_string(&path).doing(format!("reading {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes one attribute in a single system call.
    pub fn write(&self, attribute: &str, value: &str) -> Result<()> {
        write_attribute(&self.path().join(attribute), value)
    }

    /// The driver that the function is bound to.
    pub fn driver(&self) -> Option<String> {
        let target = fs::read_link(self.path().join("driver")).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The name of the function's IOMMU group.
    pub fn iommu_group(&self) -> Result<String> {
        let path = self.path().join("iommu_group");
        let target = fs::read_link(&path).doing(format!("reading {}", path.display()))?;
        let name = target.file_name().and_then(|n| n.to_str());
        name.map(str::to_owned)
            .ok_or_else(|| Error::new(format!("{} has no name in it", path.display())))
    }

    /// The PCI power state that the kernel believes the function to be in, such as `D3hot`.
    pub fn power_state(&self) -> Result<String> {
        self.read("power_state")
    }

    /// Waits until the power state is `state`, for as long as runtime PM may need; returns the
    /// last state seen.
    pub fn wait_power_state(&self, state: &str) -> Result<String> {
        wait::until(
            wait::SETTLE,
            || self.power_state(),
            |now| now.as_ref().is_ok_and(|now| now == state),
        )
    }

    /// Watches the power state for a while in which it should not change; returns the first
    /// state that differs from `state`, or `state`.
    pub fn watch_power_state(&self, state: &str) -> Result<String> {
        wait::until(
            wait::STAY,
            || self.power_state(),
            |now| now.as_ref().is_ok_and(|now| now != state),
        )
    }

    /// Whether the function has the power management capability, without which it is always in
    /// D0.
    pub fn has_power_management(&self) -> Result<bool> {
        let path = self.path().join("config");
        let config = fs::read(&path).doing(format!("reading {}", path.display()))?;
        Ok(capabilities(&config).contains(&CAPABILITY_PM))
    }

    /// The power state in which a vfio-pci driver leaves the function while nobody uses it.
    pub fn idle_power_state(&self) -> Result<&'static str> {
        Ok(if self.has_power_management()? {
            "D3hot"
        } else {
            "D0"
        })
    }

    /// The ways in which the kernel can reset this function alone, as it found them at probe.
    pub fn reset_method(&self) -> Result<String> {
        self.read("reset_method")
    }

    /// Vendor and device ID, in hexadecimal without a prefix.
    pub fn id(&self) -> Result<(String, String)> {
        let hex = |attribute: &str| {
            let text = self.read(attribute)?;
            Ok(text.trim_start_matches("0x").to_owned())
        };
        Ok((hex("vendor")?, hex("device")?))
    }

    /// Takes the function from the driver that it is bound to, if it is bound. Blocks for as
    /// long as the driver's remove does.
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

    /// Unbinds the function and binds it to `driver` by `driver_override`. The error is the one
    /// of the write to `bind`: the errno is that of the driver's probe.
    pub fn bind(&self, driver: &str) -> Result<()> {
        self.unbind()?;
        self.set_override(Some(driver))?;
        self.attach(driver)
    }

    /// Binds the function to `driver`, which its `driver_override` names already.
    pub fn attach(&self, driver: &str) -> Result<()> {
        write_attribute(&driver_path(driver).join("bind"), &self.0)
    }

    /// Unbinds the function and lets any driver have it again, without offering it to one.
    pub fn release(&self) -> Result<()> {
        self.unbind()?;
        self.set_override(None)
    }

    /// Releases the function and has the kernel find the driver that it would have at boot.
    pub fn reprobe(&self) -> Result<()> {
        self.release()?;
        write_attribute(&Path::new(PCI_BUS).join("drivers_probe"), &self.0)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The driver's directory in sysfs; it exists while the driver is registered.
pub fn driver_path(driver: &str) -> PathBuf {
    Path::new(PCI_BUS).join("drivers").join(driver)
}

/// Every PCI function of the machine.
pub fn all_functions() -> Result<Vec<Bdf>> {
    let path = Path::new(PCI_BUS).join("devices");
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).doing(format!("listing {}", path.display()))? {
        let entry = entry.doing(format!("listing {}", path.display()))?;
        if let Some(name) = entry.file_name().to_str() {
            found.push(Bdf::parse(name)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a sysfs attribute in one system call, so that the errno is that of its store function.
pub fn write_attribute(path: &Path, value: &str) -> Result<()> {
    let doing = || format!("writing '{}' to {}", value.trim_end(), path.display());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .doing(doing())?;
    file.write_all(value.as_bytes()).doing(doing())
}

/// The IDs of the capabilities in a function's configuration space.
fn capabilities(config: &[u8]) -> Vec<u8> {
    let byte = |at: usize| config.get(at).copied().unwrap_or(0);
    let mut found = Vec::new();
    if byte(STATUS) & STATUS_CAPABILITIES == 0 {
        return found;
    }
    let mut at = usize::from(byte(CAPABILITY_LIST) & !3);
    // Each takes four bytes at least; a list that is longer than the space goes in circles.
    while at != 0 && found.len() < 64 {
        found.push(byte(at));
        at = usize::from(byte(at + 1) & !3);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_list() {
        let mut config = vec![0; 256];
        config[CAPABILITY_LIST] = 0x40;
        assert!(capabilities(&config).is_empty());
        config[STATUS] = STATUS_CAPABILITIES;
        config[0x40..0x42].copy_from_slice(&[0x10, 0x80]);
        config[0x80..0x82].copy_from_slice(&[CAPABILITY_PM, 0]);
        assert_eq!(capabilities(&config), [0x10, CAPABILITY_PM]);
    }

    #[test]
    fn addresses() {
        let bdf = Bdf::parse("0000:0A:1f.7").expect("a valid address");
        assert_eq!(bdf.to_string(), "0000:0a:1f.7");
        assert_eq!(bdf.bus(), "0000:0a");
        assert_eq!(bdf.slot(), "0000:0a:1f");
        assert_eq!(bdf.numbers(), [0, 0x0a, 0x1f, 7]);
        for wrong in [
            "0a:1f.7",
            "0000:0a:1f:7",
            "0000.0a:1f.7",
            "0000:0a:1f.77",
            "0000:0g:1f.7",
        ] {
            assert!(Bdf::parse(wrong).is_err(), "{wrong}");
        }
    }
}
