// SPDX-License-Identifier: GPL-2.0

//! The differences between the drivers of this module. All share the life cycle of a function.

use crate::vfio::EnabledDevice;
use kernel::{
    pci,
    prelude::*, //
};

/// A driver of this module, for all functions or for those of one class.
///
/// All share the reset domains, so their functions can be on one bus.
pub(crate) trait Variant: Sized + Send + Sync + 'static {
    /// The name of the driver.
    const NAME: &'static CStr;

    /// The class of the functions that it drives, if not all.
    const CLASS: Option<pci::Class> = None;

    /// Called at the last close, before the function is disabled and reset.
    ///
    /// The function is as its user left it, and counts as open: this delays the close, an unbind,
    /// and a reset of its slot or bus. Called with the `dev_set->lock` of the device held, and with
    /// the group lock if it was opened through that; not in no-IOMMU mode. May sleep.
    fn before_close(_device: &EnabledDevice<'_, Self>) {}
}
