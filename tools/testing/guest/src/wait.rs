// SPDX-License-Identifier: GPL-2.0

//! Waiting for what the kernel does in its own time (runtime PM, asynchronous file release),
//! always with a limit.

use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How long to wait for something that the kernel does at once on an idle machine. Generous:
/// under emulation without hardware help everything takes many times as long.
pub const SETTLE: Duration = Duration::from_secs(15);

/// How long to watch for something that should not happen.
pub const STAY: Duration = Duration::from_millis(750);

const POLL: Duration = Duration::from_millis(20);

/// Calls `probe` until `done` accepts what it returns or `limit` has passed; returns the last
/// value either way, for the caller to compare and report.
pub fn until<T>(limit: Duration, mut probe: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let value = probe();
        if done(&value) || start.elapsed() >= limit {
            return value;
        }
        thread::sleep(POLL);
    }
}
