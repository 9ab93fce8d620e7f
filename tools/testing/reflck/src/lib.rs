// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the reflck, that is of the driver's `reflck.rs`, and of `vfio/address.rs`.
//!
//! Both files are compiled here as they are in the driver, with the crate `kernel` of this
//! directory in the place of the kernel's. Without `cfg(test)` there is nothing in this crate.

#![cfg(test)]
#![feature(arbitrary_self_types)]

mod reflck;
mod bindings {
    pub(crate) mod work;
}

mod fake;

mod allocation_failures;
mod claims;
mod display;
mod domains;
mod hot_reset;
mod resets;
mod retry;
mod stress;
mod traces;
mod waiting;
