// SPDX-License-Identifier: GPL-2.0

//! The state of a function that a failure is about, and the events that led to it.

use std::fs;
use std::ops::Range;
use std::process::Command;

use lab::driver;
use lab::sysfs::Bdf;
use lab::trace::Event;

use crate::user::Function;

/// How many operations, tracepoints and kernel messages are shown.
const LAST: usize = 30;

// linux/pci_regs.h
const HEADER: usize = 64;
const SECONDARY_STATUS: usize = 0x1e;
const WINDOWS: Range<usize> = 0x20..0x30;
const BRIDGE_CONTROL: usize = 0x3e;

/// Returns the power state and the header of a function, and the registers of its port.
///
/// The header comes last, as reading it wakes the function.
pub fn state(function: &Function) -> String {
    let bdf = &function.bdf;
    let read = |name| bdf.read(name).unwrap_or_else(|error| format!("{:?}", lab::errno(&error)));
    let mut text = format!("    {} {bdf}:", function.role);
    for name in ["power_state", "power/runtime_status", "power/control"] {
        text += &format!(" {name} {}", read(name));
    }
    if let Some(port) = port(bdf) {
        let header = header(&port);
        let word = |at: usize| header.get(at..at + 2).map(|bytes| [bytes[1], bytes[0]]);
        text += &format!(
            "\n    port {port}: secondary status {:02x?}, bridge control {:02x?}, windows {:02x?}",
            word(SECONDARY_STATUS),
            word(BRIDGE_CONTROL),
            header.get(WINDOWS)
        );
    }
    // The start, the end and the flags, which are 0 if there is no such BAR.
    for line in read("resource").lines().filter(|line| !line.ends_with(" 0x0000000000000000")) {
        text += &format!("\n    resource {line}");
    }
    for row in header(bdf).chunks(16) {
        text += &format!("\n    {row:02x?}");
    }
    text
}

fn header(bdf: &Bdf) -> Vec<u8> {
    let mut config = bdf.config().unwrap_or_default();
    config.truncate(HEADER);
    config
}

/// Returns the port above a function.
fn port(bdf: &Bdf) -> Option<Bdf> {
    let path = fs::canonicalize(bdf.path()).ok()?;
    Bdf::parse(path.parent()?.file_name()?.to_str()?).ok()
}

/// Returns the last of the `operations` on a function, of its tracepoints, and of the kernel
/// messages about its bus and port. The kernel's own clock can differ from the monotonic one.
pub fn history(function: &Function, operations: &[String], events: &[Event]) -> String {
    let address = function.bdf.to_string();
    let is_own = |event: &&Event| event.field("function") == address;
    let events: Vec<_> = events.iter().filter(is_own).map(Event::to_string).collect();
    let near = [Some(function.bdf.bus().to_owned()), port(&function.bdf).map(|p| p.to_string())];
    let is_near = |line: &&str| near.iter().flatten().any(|name| line.contains(name));
    let messages = driver::run(Command::new("busybox").arg("dmesg")).unwrap_or_default();
    let messages: Vec<_> = messages.lines().filter(is_near).map(str::to_owned).collect();
    let mut text = format!("the last events of {}:\n", function.role);
    for lines in [operations, &events, &messages] {
        for line in &lines[lines.len().saturating_sub(LAST)..] {
            text += &format!("    {line}\n");
        }
    }
    text
}
