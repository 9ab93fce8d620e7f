// SPDX-License-Identifier: GPL-2.0

//! Scenario 15: IDs that are given to the driver, and taken from it, while it is loaded: `new_id`
//! and `remove_id` in its directory in sysfs.

use nix::errno::Errno;

use super::errno;
use crate::driver;
use crate::ktap::Test;
use crate::lab;
use crate::lab::Lab;
use crate::sysfs;
use crate::sysfs::write_attribute;
use crate::sysfs::Bdf;
use crate::topology::Device;
use crate::Result;

const NEW: &str = "new_id";
const REMOVE: &str = "remove_id";

/// Anything will do in the place of this ID.
const ANY: &str = "ffffffff";

/// Three functions of one ID, which no other function has.
struct Functions {
    devices: Vec<Device>,
    vendor: String,
    id: String,
}

impl Functions {
    fn of(lab: &Lab) -> Result<Self> {
        let devices = lab.topology.family("conv", 3)?;
        let (vendor, id) = devices[0].id()?;
        Ok(Functions {
            devices,
            vendor,
            id,
        })
    }

    /// `fields`, with the vendor's and the device's ID before them.
    fn with(&self, fields: &str) -> String {
        format!("{} {} {fields}", self.vendor, self.id)
    }

    fn release(&self) -> Result<()> {
        self.devices.iter().try_for_each(|device| device.release())
    }
}

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    let functions = Functions::of(lab)?;
    functions.release()?;
    lab.driver.load(&[])?;
    bound_and_not(lab, t, &functions)?;
    overridden(lab, t, &functions)?;
    narrowed(lab, t, &functions)?;
    refused(lab, t, &functions);
    forgotten(lab, t, &functions)?;
    lab.unreferenced(t)
}

/// An ID binds what is there, and what is found later; when it is removed, what is bound stays so
/// and nothing is bound any more.
fn bound_and_not(lab: &Lab, t: &mut Test, functions: &Functions) -> Result<()> {
    let first = &functions.devices[0];
    let id = functions.with("");
    offered(lab, t, "without an ID", first, false)?;
    write(lab, NEW, &id)?;
    bound(lab, t, "by an ID", 3)?;
    for device in &functions.devices {
        lab.state(t, device, "bound by an ID", "idle")?;
    }
    offered(lab, t, "with the ID", first, true)?;
    fails(lab, t, "the same ID again", NEW, &id, Errno::EEXIST);

    write(lab, REMOVE, &id)?;
    bound(lab, t, "when the ID is removed", 3)?;
    offered(lab, t, "with the ID removed", first, false)?;
    fails(lab, t, "the same again", REMOVE, &id, Errno::ENODEV);
    functions.release()
}

/// A function that is meant for another driver is not bound by an ID.
fn overridden(lab: &Lab, t: &mut Test, functions: &Functions) -> Result<()> {
    let id = functions.with("");
    functions.devices[0].set_override(Some(lab::STUB))?;
    write(lab, NEW, &id)?;
    bound(lab, t, "with one that is another driver's", 2)?;
    write(lab, REMOVE, &id)?;
    functions.release()
}

/// Subsystem and class of an ID narrow what it binds.
fn narrowed(lab: &Lab, t: &mut Test, functions: &Functions) -> Result<()> {
    let first = &functions.devices[0];
    let subsystem = [
        first.read("subsystem_vendor")?,
        first.read("subsystem_device")?,
    ]
    .join(" ");
    let class = first.read("class")?;
    let vendors = format!("{} {ANY} {ANY} {ANY}", functions.vendor);
    for (what, id, count) in [
        ("by the subsystem", functions.with(&subsystem), 3),
        (
            "by another subsystem",
            functions.with(&format!("{} 1", functions.vendor)),
            0,
        ),
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

/// What is no ID, or cannot be the driver's.
fn refused(lab: &Lab, t: &mut Test, functions: &Functions) {
    for attribute in [NEW, REMOVE] {
        fails(lab, t, "nonsense", attribute, "nonsense", Errno::EINVAL);
        let half = &functions.vendor;
        fails(lab, t, "half an ID", attribute, half, Errno::EINVAL);
    }
    let data = functions.with(&format!("{ANY} {ANY} 0 0 1"));
    fails(lab, t, "an ID with data", NEW, &data, Errno::EINVAL);
    let other = functions.with(&format!("{} 1", functions.vendor));
    fails(lab, t, "an unknown ID", REMOVE, &other, Errno::ENODEV);
}

/// IDs go with the module.
fn forgotten(lab: &Lab, t: &mut Test, functions: &Functions) -> Result<()> {
    if lab.driver.built_in()? {
        t.skip("IDs go with the module", driver::BUILT_IN);
        return Ok(());
    }
    write(lab, NEW, &functions.with(""))?;
    bound(lab, t, "before the module is removed", 3)?;
    lab.driver.unload()?;
    lab.driver.load(&[])?;
    offered(lab, t, "after it", &functions.devices[0], false)
}

/// Asserts how many functions the driver has, and releases none.
fn bound(lab: &Lab, t: &mut Test, when: &str, expected: usize) -> Result<()> {
    let functions = sysfs::all_functions()?;
    let ours = |function: &&Bdf| function.driver().as_deref() == Some(lab.driver.name());
    let got = functions.iter().filter(ours).count();
    t.observe(format!("bound {when}"), got);
    t.eq(format!("functions bound {when}: {expected}"), expected, got);
    Ok(())
}

/// Asserts whether the driver gets a function that is given back to the kernel.
fn offered(lab: &Lab, t: &mut Test, when: &str, device: &Device, taken: bool) -> Result<()> {
    device.reprobe()?;
    let got = device.driver().as_deref() == Some(lab.driver.name());
    t.observe(format!("{} taken {when}", device.role()), got);
    t.eq(format!("{device} is taken {when}: {taken}"), taken, got);
    Ok(())
}

/// Asserts that writing `id` fails.
fn fails(lab: &Lab, t: &mut Test, what: &str, attribute: &str, id: &str, expected: Errno) {
    let got = errno(&write(lab, attribute, id));
    t.observe(format!("errno of {attribute} for {what}"), &got);
    t.eq(
        format!("{attribute} refuses {what}"),
        format!("{expected:?}"),
        got,
    );
}

fn write(lab: &Lab, attribute: &str, id: &str) -> Result<()> {
    write_attribute(
        &sysfs::driver_path(lab.driver.name()).join(attribute),
        id.trim_end(),
    )
}
