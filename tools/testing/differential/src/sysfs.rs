// SPDX-License-Identifier: GPL-2.0

//! What sysfs and the module show of a driver: parameters, the files of the driver and of a device
//! that is bound to it. Their names, permissions and values are an interface too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use vfio_pci_rs_guest::driver::parameter_path;
use vfio_pci_rs_guest::driver::Driver;
use vfio_pci_rs_guest::error::Doing;
use vfio_pci_rs_guest::sysfs::driver_path;
use vfio_pci_rs_guest::Error;
use vfio_pci_rs_guest::Result;

use crate::call::Call;
use crate::call::Outcome;
use crate::call::Returned;
use crate::session::Entry;
use crate::session::Session;

/// What the module of a driver and its directories show.
pub fn of_driver(driver: &Driver) -> Result<Vec<Entry>> {
    let mut facts = BTreeMap::new();
    for (name, about) in parameters(driver)? {
        facts.insert(format!("parameter {name}"), about);
    }
    for (name, permissions) in files(&driver_path(driver.name()))? {
        facts.insert(format!("driver's file {name}"), permissions);
    }
    Ok(facts
        .into_iter()
        .map(|(what, is)| {
            let mut outcome = Outcome::new(Returned::Text(is));
            outcome.calls = 0;
            (Call::Fact(what), outcome)
        })
        .collect())
}

/// What a device that is bound has in its directory.
pub fn of_function(session: &mut Session<'_>) -> Result<()> {
    let function = session.function();
    for (name, permissions) in files(&function.path())? {
        session.fact(format!("device's file {name}"), permissions);
    }
    for attribute in ["reset_method", "power/control", "broken_parity_status"] {
        session.fact(format!("device's {attribute}"), function.read(attribute)?);
    }
    Ok(())
}

/// The parameters: description, type, and for those that can be read, permissions and value.
fn parameters(driver: &Driver) -> Result<BTreeMap<String, String>> {
    let module = driver.module();
    let output = Command::new("modinfo")
        .args(["--field", "parm", &module])
        .output()
        .doing("running modinfo")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("modinfo failed: {complaint}")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (name, description) = line.split_once(':').unwrap_or((line, ""));
        let mut about = format!("'{description}'");
        let path = parameter_path(&module, name);
        if let Ok(metadata) = path.metadata() {
            let value = fs::read_to_string(&path).unwrap_or_default();
            about += &format!(
                ", {:o}, '{}'",
                metadata.permissions().mode() & 0o7777,
                value.trim_end()
            );
        }
        found.insert(name.to_owned(), about);
    }
    Ok(found)
}

/// The names in a directory that are no devices, with their permissions.
fn files(directory: &Path) -> Result<BTreeMap<String, String>> {
    let doing = || format!("listing {}", directory.display());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).doing(doing())? {
        let entry = entry.doing(doing())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Devices that happen to be bound.
        if name.contains(':') {
            continue;
        }
        let metadata = entry.metadata().doing(doing())?;
        let kind = if metadata.is_symlink() {
            "link"
        } else if metadata.is_dir() {
            "directory"
        } else {
            "file"
        };
        let mode = metadata.permissions().mode() & 0o7777;
        found.insert(name, format!("{kind} {mode:o}"));
    }
    Ok(found)
}
