// SPDX-License-Identifier: GPL-2.0

//! The machine's devices, by the role that each plays in a test.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;

use crate::sysfs::Bdf;

/// The roles of `topology.json`, which the runner of the virtual machine writes.
#[derive(Debug, Clone, Deserialize)]
pub struct Topology(BTreeMap<String, Bdf>);

/// A function and its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    role: String,
    bdf: Bdf,
}

impl Device {
    pub fn new(role: impl Into<String>, bdf: &Bdf) -> Self {
        Device { role: role.into(), bdf: bdf.clone() }
    }

    pub fn role(&self) -> &str {
        &self.role
    }

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
    /// Reads `topology.json` in the directory of the results.
    pub fn read(results: &Path) -> Result<Self> {
        let path = results.join("topology.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let topology: Topology = serde_json::from_str(&text).context("topology.json")?;
        ensure!(!topology.0.is_empty(), "topology.json has no role");
        Ok(topology)
    }

    /// Returns the device in `role`; an error if this machine has none.
    pub fn device(&self, role: &str) -> Result<Device> {
        let bdf = self.0.get(role);
        bdf.map(|bdf| Device::new(role, bdf))
            .with_context(|| format!("the topology has no device in the role '{role}'"))
    }

    /// Returns the devices in all `roles`.
    pub fn devices<const N: usize>(&self, roles: [&str; N]) -> Result<[Device; N]> {
        let devices = roles.map(|role| self.device(role));
        let devices = devices.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(devices.try_into().expect("each role has a device"))
    }

    /// Returns the devices whose role is `family`, a dot and one letter or digit, in the order of
    /// their roles; an error if there are fewer than `least`. (`bus.port` is the port above `bus.a`.)
    pub fn family(&self, family: &str, least: usize) -> Result<Vec<Device>> {
        let member = |role: &str| {
            let member = role.strip_prefix(family).and_then(|rest| rest.strip_prefix('.'));
            member.is_some_and(|member| member.len() == 1)
        };
        let roles = self.0.iter().filter(|(role, _)| member(role));
        let devices: Vec<_> = roles.map(|(role, bdf)| Device::new(role, bdf)).collect();
        let found = devices.len();
        ensure!(found >= least, "the topology has {found} devices '{family}.?', not {least}");
        Ok(devices)
    }
}
