// SPDX-License-Identifier: GPL-2.0

//! Tests of the driver's `reflck.rs`, `vfio/dynamic_id.rs` and `vfio/record.rs` on the host, with a
//! stand-in for the kernel crate.
//!
//! `reflck/tests.rs` has the tests that KUnit runs as well. The ones here need threads, allocations
//! that fail or a clock that can be moved. With `--cfg loom` there are the models instead.

#![cfg(test)]
#![feature(arbitrary_self_types)]
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod bindings {
    pub(crate) mod work;
}
// The models alone call some of the fake hardware.
#[allow(dead_code)]
mod reflck;
mod vfio {
    #[allow(dead_code)]
    pub(crate) mod dynamic_id;
    #[cfg(not(loom))]
    pub(crate) mod record;
}

#[cfg(not(loom))]
mod allocations;
#[cfg(not(loom))]
mod dynamic_ids;
#[cfg(loom)]
mod models;
#[cfg(not(loom))]
mod records;
#[cfg(not(loom))]
mod retries;
#[cfg(not(loom))]
mod threads;
