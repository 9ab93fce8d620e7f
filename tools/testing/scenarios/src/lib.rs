// SPDX-License-Identifier: GPL-2.0

//! The programs that run inside the guest: the scenarios, the guest's half of the demonstration,
//! the benchmark, and the walk through failing allocations.

#![forbid(unsafe_code)]

pub mod bench;
pub mod faults;
pub mod qemu;
pub mod scenarios;
