// SPDX-License-Identifier: GPL-2.0

//! The part of the driver's `vfio` module that the reflck uses.

#[path = "../../../../vfio/address.rs"]
pub(crate) mod address;
