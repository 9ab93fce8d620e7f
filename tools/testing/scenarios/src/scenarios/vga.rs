// SPDX-License-Identifier: GPL-2.0

//! The legacy addresses that a VGA device answers to, as the VGA arbiter believes.
//!
//! With `disable_vga`, user space has no access to them, and a bridge need not forward them unless
//! another VGA device is behind it. The root bus has no bridge.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

use anyhow::{ensure, Context, Result};
use lab::driver;
use lab::machine::Lab;
use lab::report::Test;
use lab::sysfs::Bdf;
use lab::topology::Device;
use lab::wait;

const ARBITER: &str = "/dev/vga_arbiter";
const BOTH: &str = "io+mem";
const NEITHER: &str = "none";

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let device = lab.topology.device("vga.a")?;
    let sibling = lab.topology.device("vga.b")?;
    let root = lab.topology.device("vga.root")?;
    // From its first use on, the arbiter calls drivers when devices appear. (`root` owns both.)
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

/// Checks the legacy addresses of `device`.
fn decodes(t: &mut Test<'_>, device: &Device, when: &str, expected: &str) -> Result<()> {
    let state = Arbiter::open(device)?.state()?;
    let mut parts = state.split(',');
    let got = parts.find_map(|part| part.strip_prefix("decodes="));
    let got = got.with_context(|| format!("{ARBITER} has no decodes in '{state}'"))?;
    t.seen(format!("{device} decodes {when}"), expected, got);
    Ok(())
}

/// The arbiter's file, with one device as its target.
struct Arbiter(File);

impl Arbiter {
    fn open(target: &Bdf) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(ARBITER);
        let mut arbiter = Arbiter(file.context(ARBITER)?);
        arbiter.send(&format!("target PCI:{target}"))?;
        Ok(arbiter)
    }

    fn send(&mut self, command: &str) -> Result<()> {
        let written = self.0.write_all(command.as_bytes());
        written.with_context(|| format!("writing '{command}' to {ARBITER}"))
    }

    fn state(&mut self) -> Result<String> {
        // Each read returns the whole state.
        let mut text = [0_u8; 1024];
        let length = self.0.read(&mut text).context(ARBITER)?;
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

    /// Makes the kernel find the function again. Unlike dropping, this returns an error.
    fn rescan(&self) -> Result<()> {
        self.sibling.write("rescan", "1")?;
        let path = self.function.path();
        let found = wait::until(wait::SETTLE, || path.exists(), |exists| *exists);
        ensure!(found, "{} is not found again", self.function);
        Ok(())
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(e) = self.rescan() {
            eprintln!("{} was not brought back: {e:#}", self.function);
        }
    }
}
