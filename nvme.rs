// SPDX-License-Identifier: GPL-2.0

//! `vfio-pci-nvme`, for NVMe controllers. It shuts a controller down before the function is reset.
//!
//! A shutdown makes a drive write its cache to the medium, a reset does not. A guest that is killed
//! asks for none. The drive may then lose its cache when it next loses power, and counts that.
//!
//! The bits are those of the NVM Express Base Specification. A controller that is not ready or has
//! failed is left alone, as by `nvme_dev_disable()` in `drivers/nvme/host/pci.c`.

use crate::{
    variant::Variant,
    vfio::{
        log_ratelimited,
        Bar,
        EnabledDevice, //
    }, //
};
use kernel::{
    io::poll::read_poll_timeout,
    pci,
    prelude::*,
    time::Delta, //
};

/// The driver.
pub(crate) struct VfioPciNvme;

impl Variant for VfioPciNvme {
    /// libvirt takes the first driver in `/sys/module/MODULE/drivers` for any function. A hash of
    /// the names orders them, and puts this one behind that of the first driver.
    const NAME: &'static CStr = c"vfio-pci-nvme";

    const CLASS: Option<pci::Class> = Some(pci::Class::STORAGE_EXPRESS);

    fn before_close(device: &EnabledDevice<'_, Self>) {
        // Other errors mean that the controller cannot be reached, by its user either.
        if let Err(error @ (ETIMEDOUT | ENXIO)) = device.bar(0).and_then(|bar| shut_down(&bar)) {
            if log_ratelimited() {
                dev_warn!(
                    device.data().hardware().dev(),
                    "shutdown not complete (error {})\n",
                    error.to_errno()
                );
            }
        }
    }
}

/// The limit of the host's own driver, for drives that do not ask for more.
const LIMIT_S: i64 = 5;

/// Controller Configuration.
const CC: usize = 0x14;
const CC_EN: u32 = 1 << 0;
const CC_SHN: u32 = 3 << 14;
const CC_SHN_NORMAL: u32 = 1 << 14;

/// Controller Status.
const CSTS: usize = 0x1c;

/// The value of [`CSTS`].
#[derive(Clone, Copy)]
struct Status(u32);

impl Status {
    const RDY: u32 = 1 << 0;
    const CFS: u32 = 1 << 1;
    const SHST: u32 = 3 << 2;
    const SHST_NONE: u32 = 0;
    const SHST_COMPLETE: u32 = 2 << 2;

    fn read(bar: &Bar<'_>) -> Result<Self> {
        bar.try_read32(CSTS).map(Self)
    }

    /// Returns whether the controller is enabled, works and answers.
    fn is_ready(self) -> bool {
        self.0 != !0 && self.0 & (Self::RDY | Self::CFS) == Self::RDY
    }

    fn shutdown(self) -> u32 {
        self.0 & Self::SHST
    }
}

/// Shuts a controller down, unless its user has done so, and waits for that.
///
/// The queues are not deleted first. Commands in flight may still complete: the IOMMU maps the
/// user's memory until the close is over. Fails with [`ETIMEDOUT`], with [`ENXIO`] if a reset or
/// a fatal error ends the shutdown, or with the error of an access.
fn shut_down(bar: &Bar<'_>) -> Result {
    let status = Status::read(bar)?;

    if !status.is_ready() {
        return Ok(());
    }
    if status.shutdown() == Status::SHST_NONE {
        let cc = bar.try_read32(CC)?;
        // Root or AER may reset the function at any time.
        if cc == !0 || cc & CC_EN == 0 {
            return Ok(());
        }
        bar.try_write32(cc & !CC_SHN | CC_SHN_NORMAL, CC)?;
    }

    let status = read_poll_timeout(
        || Status::read(bar),
        |status| !status.is_ready() || status.shutdown() == Status::SHST_COMPLETE,
        Delta::from_millis(1),
        Delta::from_secs(LIMIT_S),
    )?;

    match status.shutdown() {
        Status::SHST_COMPLETE => Ok(()),
        _ => Err(ENXIO),
    }
}
