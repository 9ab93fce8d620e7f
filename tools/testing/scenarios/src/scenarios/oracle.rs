// SPDX-License-Identifier: GPL-2.0

//! The content of a register that the next user of a function finds, by the ways in which a
//! function changes hands.

use anyhow::Result;
use lab::driver;
use lab::helper::Marked;
use lab::machine::{Lab, STUB};
use lab::report::Test;
use lab::topology::Device;
use lab::vfio::User;

use super::failed_reset::comes_clean;
use crate::registers::{find, leave, Content, Holder, Registers};

const ZERO: Content = Content::ZERO;
const LEFT: Content = Content::LEFT;

/// A way, and the contents found afterwards with vfio-pci and with ours.
struct Way {
    what: &'static str,
    c: Content,
    ours: Content,
    run: fn(&Lab, &Functions) -> Result<Content>,
}

const fn way(
    what: &'static str,
    c: Content,
    ours: Content,
    run: fn(&Lab, &Functions) -> Result<Content>,
) -> Way {
    Way { what, c, ours, run }
}

/// A, B and C share a bus that only its reset cleans.
pub(super) struct Functions {
    pub(super) a: Device,
    pub(super) b: Device,
    pub(super) c: Device,
    port: Device,
}

/// A is used.
const WAYS: &[Way] = &[
    way("close, open", ZERO, ZERO, closed),
    way("kill, open", ZERO, ZERO, killed),
    way("close and open beside an open function", LEFT, LEFT, beside),
    way("close beside a stranger, bind it, open", LEFT, ZERO, stranger_bound),
    way("close beside a stranger, unbind, bind both, open", LEFT, ZERO, rebound),
    way("close beside a stranger, reload the driver, bind all, open", LEFT, LEFT, reloaded),
    way("close while the reset fails, retry, open", LEFT, ZERO, retried),
];

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let functions = Functions::of(lab)?;
    for Way { what, c, ours, run } in WAYS {
        lab.driver.load_as_is(&[])?;
        functions.clean_bus()?;
        let found = run(lab, &functions);
        let expected = if lab.driver.shows_domains() { ours } else { c };
        if let Some(found) = t.done(format!("{what}: can be tried"), found) {
            t.eq(format!("left to the next user: {what}"), *expected, found);
        }
        lab.restore()?;
    }
    Ok(())
}

impl Functions {
    pub(super) fn of(lab: &Lab) -> Result<Self> {
        driver::modprobe("pci_stub", &[])?;
        let [a, b, c, port] = lab.topology.devices(["bus.a", "bus.b", "bus.c", "bus.port"])?;
        Ok(Functions { a, b, c, port })
    }

    pub(super) fn bus(&self) -> [&Device; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// Resets the bus, whose functions are not bound.
    pub(super) fn clean_bus(&self) -> Result<()> {
        self.port.write("reset_subordinate", "1")
    }
}

/// Binds A and B, and C to another driver, which forbids to reset the bus; A is used.
pub fn leave_beside_stranger(lab: &Lab, [a, b, c]: [&Device; 3]) -> Result<()> {
    for device in [a, b] {
        device.bind(lab.driver.name())?;
    }
    c.bind(STUB)?;
    leave(a)
}

fn closed(lab: &Lab, functions: &Functions) -> Result<Content> {
    let _bound = lab.bind(functions.bus())?;
    leave(&functions.a)?;
    find(&functions.a)
}

fn killed(lab: &Lab, functions: &Functions) -> Result<Content> {
    let _bound = lab.bind(functions.bus())?;
    Holder::start(&functions.a)?.kill()?;
    lab.wait_unreferenced()?;
    find(&functions.a)
}

fn beside(lab: &Lab, functions: &Functions) -> Result<Content> {
    let _bound = lab.bind(functions.bus())?;
    // A group can have one user only.
    let user = User::new()?;
    let _other = user.open(&functions.b)?;
    Registers::open(&user, &functions.a)?.write()?;
    let next = Registers::open(&user, &functions.a)?;
    next.content()
}

fn stranger_bound(lab: &Lab, functions: &Functions) -> Result<Content> {
    leave_beside_stranger(lab, functions.bus())?;
    functions.c.bind(lab.driver.name())?;
    find(&functions.a)
}

fn rebound(lab: &Lab, functions: &Functions) -> Result<Content> {
    leave_beside_stranger(lab, functions.bus())?;
    functions.a.bind(lab.driver.name())?;
    functions.c.bind(lab.driver.name())?;
    find(&functions.a)
}

fn reloaded(lab: &Lab, functions: &Functions) -> Result<Content> {
    leave_beside_stranger(lab, functions.bus())?;
    functions.bus().into_iter().try_for_each(|f| f.release())?;
    lab.driver.load_as_is(&[])?;
    let _bound = lab.bind(functions.bus())?;
    find(&functions.a)
}

fn retried(lab: &Lab, functions: &Functions) -> Result<Content> {
    let _bound = lab.bind(functions.bus())?;
    let lock = Marked::locked(&functions.c)?;
    leave(&functions.a)?;
    lab.wait_idle(&functions.a)?;
    drop(lock);
    if lab.driver.shows_domains() {
        comes_clean(lab, &functions.a)?;
    }
    find(&functions.a)
}
