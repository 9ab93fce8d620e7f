// SPDX-License-Identifier: GPL-2.0

//! The virtual machine's devices by the role that they play in a test, as the VM runner wrote
//! them to `$RESULTS/topology.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::Path;

use crate::error::Doing;
use crate::sysfs::Bdf;
use crate::Error;
use crate::Result;

/// Role to PCI address.
#[derive(Debug, Clone)]
pub struct Topology {
    roles: BTreeMap<String, Bdf>,
}

/// A function, with the role that it plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    role: String,
    bdf: Bdf,
}

impl Device {
    /// Gives `bdf` the name that messages and observations use for it.
    pub fn new(role: impl Into<String>, bdf: &Bdf) -> Self {
        Device {
            role: role.into(),
            bdf: bdf.clone(),
        }
    }

    /// The role.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The address.
    pub fn bdf(&self) -> &Bdf {
        &self.bdf
    }
}

impl Deref for Device {
    type Target = Bdf;

    fn deref(&self) -> &Bdf {
        &self.bdf
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.role, self.bdf)
    }
}

impl Topology {
    /// Reads the runner's file from the results directory.
    pub fn read(results: &Path) -> Result<Self> {
        let path = results.join("topology.json");
        let text = fs::read_to_string(&path).doing(format!("reading {}", path.display()))?;
        Self::parse(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))
    }

    /// Parses an object of roles and their PCI addresses.
    pub fn parse(text: &str) -> Result<Self> {
        let roles: BTreeMap<String, String> = serde_json::from_str(text)
            .map_err(|e| Error::new(format!("not an object of roles: {e}")))?;
        let roles: BTreeMap<String, Bdf> = roles
            .into_iter()
            .map(|(role, bdf)| Ok((role, Bdf::parse(&bdf)?)))
            .collect::<Result<_>>()?;
        if roles.is_empty() {
            return Err(Error::new("no role with a PCI address in it"));
        }
        Ok(Topology { roles })
    }

    /// The device that plays `role`; an error if this machine has none.
    pub fn device(&self, role: &str) -> Result<Device> {
        let bdf = self.roles.get(role);
        bdf.map(|bdf| Device::new(role, bdf))
            .ok_or_else(|| Error::new(format!("the topology has no device in the role '{role}'")))
    }

    /// All devices whose role is `family`, a dot and one letter or digit, in the order of their
    /// roles; an error if there are fewer than `least`. (`bus.port` is the port above `bus.a`.)
    pub fn family(&self, family: &str, least: usize) -> Result<Vec<Device>> {
        let prefix = format!("{family}.");
        let devices: Vec<Device> = self
            .roles
            .iter()
            .filter(|(role, _)| {
                role.strip_prefix(&prefix)
                    .is_some_and(|rest| rest.len() == 1)
            })
            .map(|(role, bdf)| Device::new(role, bdf))
            .collect();
        if devices.len() < least {
            return Err(Error::new(format!(
                "the topology has {} devices in roles '{prefix}…', {least} are needed",
                devices.len()
            )));
        }
        Ok(devices)
    }

    /// Every device that has a role.
    pub fn all(&self) -> impl Iterator<Item = &Bdf> {
        self.roles.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family() {
        let t = Topology::parse(r#"{"flr.1":"0000:02:00.1","flr.0":"0000:02:00.0"}"#);
        let t = t.expect("a valid file");
        let flr = t.family("flr", 2).expect("two devices");
        assert_eq!(flr[0].bdf().to_string(), "0000:02:00.0");
        assert_eq!(flr[1].role(), "flr.1");
        assert!(t.device("flr.2").is_err());
        assert!(t.family("flr", 3).is_err());
    }

    #[test]
    fn a_family_is_not_a_prefix() {
        let t = Topology::parse(
            r#"{"bus.a":"0000:02:00.1","busy.a":"0000:02:00.0","bus.port":"0000:00:08.0"}"#,
        );
        let t = t.expect("a valid file");
        assert_eq!(t.family("bus", 1).expect("one device").len(), 1);
    }

    #[test]
    fn nothing_in_it() {
        assert!(Topology::parse("{}").is_err());
        assert!(Topology::parse("bus.a").is_err());
        assert!(Topology::parse(r#"{"bus.a":"02"}"#).is_err());
        assert!(Topology::parse(r#"{"bus.a":3}"#).is_err());
    }
}
