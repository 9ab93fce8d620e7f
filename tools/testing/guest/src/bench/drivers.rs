// SPDX-License-Identifier: GPL-2.0

//! The drivers that are compared, and loading one of them with the vfio-pci-core of its own.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::driver;
use crate::driver::Driver;
use crate::error::Doing;
use crate::Error;
use crate::Result;

/// The C driver.
pub const C: &str = "vfio-pci";

/// The driver that this is about.
pub const OURS: &str = "vfio_pci_rs";

/// The same with one lock for everything.
pub const GLOBAL: &str = "global mutex";

/// The C driver on the core of the others, for what only the core has a part in.
pub const C_SAME_CORE: &str = "vfio-pci, same core";

/// The C driver on its own core, the functions of which lie in their pages as those of the others'
/// core do, which counts for an emulated processor.
pub const C_MOVED: &str = "vfio-pci, moved";

/// What all drivers share; of the same name with and without the patches.
const CORE: &str = "vfio_pci_core";

/// A function of the core that only the patches have.
const PATCHED: &str = "vfio_pci_core_assign_device_set";

/// One of the drivers.
#[derive(Debug)]
pub struct Competitor {
    /// What the results call it.
    pub name: &'static str,
    /// What it is, in some words.
    pub title: &'static str,
    driver: Driver,
    /// The root directory of its modules; the machine's, if there is none.
    modules: Option<PathBuf>,
}

/// A driver that is loaded; dropping it removes its modules.
#[derive(Debug)]
pub struct Loaded<'a>(&'a Competitor);

impl Competitor {
    /// All of them, in the order in which they are shown; `sets` has the modules of those that are
    /// not the machine's.
    pub fn all(sets: &Path) -> [Self; 5] {
        let competitor = |name, title, driver, set: Option<&str>| Competitor {
            name,
            title,
            driver: Driver::new(driver),
            modules: set.map(|set| sets.join(set)),
        };
        [
            competitor(C, "C vfio-pci, core without our patches", C, Some("c")),
            competitor(OURS, "vfio_pci_rs", OURS, None),
            competitor(
                GLOBAL,
                "vfio_pci_rs with one mutex around every open and release, as before 2018",
                OURS,
                Some("global-mutex"),
            ),
            competitor(
                C_SAME_CORE,
                "C vfio-pci on the core that vfio_pci_rs has, with our patches",
                C,
                None,
            ),
            competitor(
                C_MOVED,
                "C vfio-pci, core without our patches, functions moved to where those of that core lie",
                C,
                Some("c-moved"),
            ),
        ]
    }

    /// The driver's name under `/sys/bus/pci/drivers`.
    pub fn driver(&self) -> &str {
        self.driver.name()
    }

    /// Loads the driver and its core, and nothing that was loaded before stays of either.
    pub fn load(&self) -> Result<Loaded<'_>> {
        unload(&self.driver)?;
        let module = self.driver.module();
        match &self.modules {
            None => driver::modprobe(&module, &[])?,
            Some(root) => driver::modprobe_from(root, &module)?,
        }
        Ok(Loaded(self))
    }

    /// Asserts that the core which is loaded has the patches if, and only if, this driver needs
    /// them.
    pub fn check_core(&self) -> Result<()> {
        let doing = "reading /proc/kallsyms";
        let symbols = fs::read("/proc/kallsyms").doing(doing)?;
        let patched = String::from_utf8_lossy(&symbols)
            .lines()
            .any(|line| line.split_whitespace().nth(2) == Some(PATCHED));
        let wanted = ![C, C_MOVED].contains(&self.name);
        if patched != wanted {
            return Err(Error::new(format!(
                "the {CORE} that is loaded for {} has {} patches",
                self.name,
                if patched { "our" } else { "none of our" },
            )));
        }
        Ok(())
    }
}

impl Loaded<'_> {
    /// Removes the modules; unlike dropping, this reports an error.
    pub fn unload(self) -> Result<()> {
        unload(&self.0.driver)
        // Dropping finds nothing to do.
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        if let Err(e) = unload(&self.0.driver) {
            eprintln!("{} was not removed: {e}", self.0.name);
        }
    }
}

fn unload(driver: &Driver) -> Result<()> {
    driver.unload()?;
    match driver::references(CORE)? {
        None => Ok(()),
        Some(_) => driver::rmmod(CORE),
    }
}
