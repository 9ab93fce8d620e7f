// SPDX-License-Identifier: GPL-2.0

//! The parts of the driver's `vfio` module that the reflck uses.

#[path = "../../../../../vfio/address.rs"]
pub(crate) mod address;
#[path = "../../src/vfio/delayed_work.rs"]
pub(crate) mod delayed_work;
