// SPDX-License-Identifier: GPL-2.0

//! Tests of the driver's `reflck.rs`, `vfio/dynamic_id.rs` and `vfio/record.rs` on the host, with a
//! stand-in for the kernel crate.
//!
//! `reflck/tests.rs` has the tests that KUnit runs as well. The ones here need threads, allocations
//! that fail or a clock that can be moved. With `--cfg loom` or `--cfg shuttle` there are the models
//! instead.

#![cfg(test)]
#![feature(arbitrary_self_types)]
#![cfg_attr(any(loom, shuttle), allow(dead_code, unused_imports))]

mod bindings {
    pub(crate) mod work;
}
// The models alone call some of the fake hardware.
#[allow(dead_code)]
mod reflck;
mod vfio {
    #[allow(dead_code)]
    pub(crate) mod dynamic_id;
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) mod record;
}

#[cfg(not(any(loom, shuttle)))]
mod allocations;
#[cfg(not(any(loom, shuttle)))]
mod dynamic_ids;
#[cfg(any(loom, shuttle))]
mod models;
#[cfg(not(any(loom, shuttle)))]
mod records;
#[cfg(not(any(loom, shuttle)))]
mod retries;
#[cfg(not(any(loom, shuttle)))]
mod threads;
