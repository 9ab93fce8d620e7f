// SPDX-License-Identifier: GPL-2.0

//! Waiting, with a limit, for changes that the kernel makes asynchronously (runtime PM, the last
//! reference to a file).

use std::thread;
use std::time::{Duration, Instant};

/// The limit for a change that an idle machine makes at once. Emulation without hardware help is
/// many times slower.
pub const SETTLE: Duration = Duration::from_secs(15);

/// How long to watch for something that must not happen.
pub const STAY: Duration = Duration::from_millis(750);

/// The PCI core waits as long for a function that it resets.
pub const RESET: Duration = Duration::from_millis(100);

const POLL: Duration = Duration::from_millis(20);

/// Calls `probe` until `done` accepts its value or `limit` has passed. Returns the last value.
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
