// SPDX-License-Identifier: GPL-2.0

//! The model check of the reflck, that is of the driver's `reflck.rs` as it stands: loom goes through
//! the interleavings of a few threads, and each of them has to keep the invariants (locking.rst).
//!
//! - `machine.rs`: functions of one bus, which assert the invariants
//! - `models.rs`: the models
//! - `mutants.toml`: what each model is known to notice

#![cfg(test)]
#![feature(arbitrary_self_types)]

// The models need a part of what there is.
#[allow(dead_code)]
mod reflck;
#[allow(dead_code)]
mod bindings {
    pub(crate) mod work;
}

mod machine;
mod models;
