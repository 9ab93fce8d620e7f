// SPDX-License-Identifier: GPL-2.0

//! Scenario 19: what the VGA arbiter is told of the legacy addresses that a VGA device answers to.
//!
//! With `disable_vga`, user space has no access to them. A bridge then need not forward them to the
//! device, unless another VGA device is behind it; on the root bus there is no bridge.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;

use crate::driver;
use crate::error::Doing;
use crate::ktap::Test;
use crate::lab::Lab;
use crate::sysfs::Bdf;
use crate::topology::Device;
use crate::wait;
use crate::Error;
use crate::Result;

const ARBITER: &str = "/dev/vga_arbiter";
const BOTH: &str = "io+mem";
const NEITHER: &str = "none";

pub(super) fn run(lab: &Lab, t: &mut Test) -> Result<()> {
    let device = lab.topology.device("vga.a")?;
    let sibling = lab.topology.device("vga.b")?;
    let root = lab.topology.device("vga.root")?;
    // From its first use on, the arbiter asks drivers when devices appear. (`root` owns both.)
    Arbiter::open(&root)?.send(&format!("lock {BOTH}"))?;

    lab.driver.load(&[])?;
    decodes(t, &device, "unbound", BOTH)?;
    let removed = Removed::remove(&sibling, &device)?;
    let binding = lab.bind([&device])?;
    decodes(t, &device, "bound", BOTH)?;
    binding.release()?;
    decodes(t, &device, "unbound again", BOTH)?;
    if !lab.driver.takes("disable_vga")? {
        t.skip("with disable_vga", driver::BUILT_IN);
        return removed.rescan();
    }

    lab.driver.load(&["disable_vga=1"])?;
    let binding = lab.bind([&device, &root])?;
    decodes(t, &device, "alone with disable_vga", NEITHER)?;
    decodes(t, &root, "with disable_vga", BOTH)?;
    binding.release()?;
    decodes(t, &device, "unbound with disable_vga", BOTH)?;

    let binding = lab.bind([&device])?;
    decodes(t, &device, "bound again with disable_vga", NEITHER)?;
    removed.rescan()?;
    decodes(t, &device, "when another appears beside it", BOTH)?;
    binding.release()?;
    let binding = lab.bind([&device])?;
    decodes(t, &device, "beside another", BOTH)?;
    binding.release()?;
    lab.unreferenced(t)
}

/// Asserts which legacy addresses the arbiter believes `device` to answer to.
fn decodes(t: &mut Test, device: &Device, when: &str, expected: &str) -> Result<()> {
    let state = Arbiter::open(device)?.state()?;
    let got = state
        .split(',')
        .find_map(|part| part.strip_prefix("decodes="))
        .ok_or_else(|| Error::new(format!("{ARBITER} says nothing of decodes in '{state}'")))?;
    t.observe(format!("{} decodes {when}", device.role()), got);
    t.eq(
        format!("{device} decodes {when}: {expected}"),
        expected,
        got,
    );
    Ok(())
}

/// The arbiter's file, with one device as its target.
struct Arbiter(File);

impl Arbiter {
    fn open(target: &Bdf) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(ARBITER);
        let mut arbiter = Arbiter(file.doing(format!("opening {ARBITER}"))?);
        arbiter.send(&format!("target PCI:{target}"))?;
        Ok(arbiter)
    }

    fn send(&mut self, command: &str) -> Result<()> {
        self.0
            .write_all(command.as_bytes())
            .doing(format!("writing '{command}' to {ARBITER}"))
    }

    fn state(&mut self) -> Result<String> {
        // One read returns all of it, and so does the next one.
        let mut text = [0_u8; 1024];
        let length = self.0.read(&mut text).doing(format!("reading {ARBITER}"))?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }
}

/// A function that is removed from its bus until this is dropped.
struct Removed {
    function: Bdf,
    sibling: Bdf,
}

impl Removed {
    fn remove(function: &Bdf, sibling: &Bdf) -> Result<Self> {
        let removed = Removed {
            function: function.clone(),
            sibling: sibling.clone(),
        };
        function.write("remove", "1")?;
        Ok(removed)
    }

    /// Has the kernel find it again; unlike dropping, this reports an error.
    fn rescan(&self) -> Result<()> {
        self.sibling.write("rescan", "1")?;
        let path = self.function.path();
        if !wait::until(wait::SETTLE, || path.exists(), |exists| *exists) {
            return Err(Error::new(format!("{} is not found again", self.function)));
        }
        Ok(())
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(e) = self.rescan() {
            eprintln!("{} was not brought back: {e}", self.function);
        }
    }
}
