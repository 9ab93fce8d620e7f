// SPDX-License-Identifier: GPL-2.0

//! IDs that the driver gets and loses while it is loaded, by `new_id` and `remove_id` in sysfs.

use anyhow::Result;
use lab::driver;
use lab::machine::{Lab, STUB};
use lab::report::Test;
use lab::sysfs::{self, write_attribute, Bdf};
use lab::topology::Device;

use super::errno;

const NEW: &str = "new_id";
const REMOVE: &str = "remove_id";

/// PCI_ANY_ID.
const ANY: &str = "ffffffff";

/// Three functions with one ID that no other function has.
struct Functions {
    devices: Vec<Device>,
    vendor: String,
    id: String,
}

impl Functions {
    fn of(lab: &Lab) -> Result<Self> {
        let devices = lab.topology.family("conv", 3)?;
        let (vendor, device) = devices[0].id()?;
        let id = format!("{vendor} {device}");
        Ok(Functions {
            devices,
            vendor,
            id,
        })
    }

    fn release(&self) -> Result<()> {
        self.devices.iter().try_for_each(|device| device.release())
    }
}

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let functions = Functions::of(lab)?;
    functions.release()?;
    lab.driver.load(&[])?;
    bound_and_not(lab, t, &functions)?;
    overridden(lab, t, &functions)?;
    narrowed(lab, t, &functions)?;
    forgotten(lab, t, &functions)?;
    lab.unreferenced(t)
}

/// An ID binds present functions and those that appear later. Removing it unbinds none.
fn bound_and_not(lab: &Lab, t: &mut Test<'_>, functions: &Functions) -> Result<()> {
    let (first, id) = (&functions.devices[0], &functions.id);
    offered(lab, t, "without an ID", first, false)?;
    write(lab, NEW, id)?;
    bound(lab, t, "by an ID", 3)?;
    for device in &functions.devices {
        lab.state(t, device, "bound by an ID", "idle")?;
    }
    offered(lab, t, "with the ID", first, true)?;
    let again = errno(&write(lab, NEW, id));
    t.seen("errno for the same ID again", "EEXIST", &again);

    write(lab, REMOVE, id)?;
    bound(lab, t, "when the ID is removed", 3)?;
    offered(lab, t, "with the ID removed", first, false)?;
    let again = errno(&write(lab, REMOVE, id));
    t.seen("errno for its removal again", "ENODEV", &again);
    functions.release()
}

/// An ID does not bind a function with an override for another driver.
fn overridden(lab: &Lab, t: &mut Test<'_>, functions: &Functions) -> Result<()> {
    functions.devices[0].set_override(Some(STUB))?;
    write(lab, NEW, &functions.id)?;
    bound(lab, t, "with an override for another driver", 2)?;
    write(lab, REMOVE, &functions.id)?;
    functions.release()
}

/// Subsystem and class of an ID narrow its matches.
fn narrowed(lab: &Lab, t: &mut Test<'_>, functions: &Functions) -> Result<()> {
    let Functions { vendor, id, .. } = functions;
    let attribute = |name| functions.devices[0].read(name);
    let subsystem = attribute("subsystem_vendor")? + " " + &attribute("subsystem_device")?;
    let class = attribute("class")?;
    let vendors = format!("{vendor} {ANY} {ANY} {ANY}");
    for (what, id, count) in [
        ("by the subsystem", format!("{id} {subsystem}"), 3),
        ("by another subsystem", format!("{id} {vendor} 1"), 0),
        ("by the class", format!("{vendors} {class} ffffff"), 3),
        ("by the base class", format!("{vendors} {class} ff0000"), 3),
        ("by another class", format!("{vendors} 010802 ffffff"), 0),
    ] {
        write(lab, NEW, &id)?;
        bound(lab, t, what, count)?;
        write(lab, REMOVE, &id)?;
        functions.release()?;
    }
    Ok(())
}

/// IDs are gone when the module is removed.
fn forgotten(lab: &Lab, t: &mut Test<'_>, functions: &Functions) -> Result<()> {
    if lab.driver.built_in()? {
        t.skip("IDs are gone with the module", driver::BUILT_IN);
        return Ok(());
    }
    write(lab, NEW, &functions.id)?;
    bound(lab, t, "before the module is removed", 3)?;
    lab.driver.unload()?;
    lab.driver.load(&[])?;
    offered(lab, t, "after it", &functions.devices[0], false)
}

/// Checks how many functions the driver has.
fn bound(lab: &Lab, t: &mut Test<'_>, when: &str, expected: usize) -> Result<()> {
    let functions = sysfs::all_functions()?;
    let ours = |function: &&Bdf| function.driver().as_deref() == Some(lab.driver.name());
    let bound = functions.iter().filter(ours).count();
    t.seen(format!("functions bound {when}"), expected, bound);
    Ok(())
}

/// Checks whether the driver gets a function that the kernel probes again.
fn offered(lab: &Lab, t: &mut Test<'_>, when: &str, device: &Device, expected: bool) -> Result<()> {
    device.reprobe()?;
    let taken = device.driver().as_deref() == Some(lab.driver.name());
    t.seen(format!("{device} is taken {when}"), expected, taken);
    Ok(())
}

fn write(lab: &Lab, attribute: &str, id: &str) -> Result<()> {
    write_attribute(&sysfs::driver_path(lab.driver.name()).join(attribute), id)
}
