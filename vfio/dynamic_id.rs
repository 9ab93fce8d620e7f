// SPDX-License-Identifier: GPL-2.0

//! PCI IDs that are added to a driver at run time.

use kernel::{
    fmt,
    prelude::*, //
};

/// A PCI ID that is added to a driver at run time.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct DynamicId {
    pub(super) vendor: u32,
    pub(super) device: u32,
    pub(super) subvendor: u32,
    pub(super) subdevice: u32,
    pub(super) class: u32,
    pub(super) class_mask: u32,
}

impl DynamicId {
    pub(super) const ANY: u32 = !0;

    /// Parses `vendor:device[:subvendor[:subdevice[:class[:class_mask]]]]`, each in hexadecimal.
    ///
    /// Like the `sscanf()` of vfio-pci, ignores the text after a character that does not fit.
    /// Fails with [`EINVAL`] if that leaves no vendor and device. Also fails if a number has more
    /// than 32 bits, which vfio-pci truncates.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts = [Self::ANY, Self::ANY, Self::ANY, Self::ANY, 0, 0];
        let mut found = 0;
        let mut rest = text;

        for part in &mut parts {
            let number = rest.trim_start();
            let number = number
                .strip_prefix("0x")
                .or_else(|| number.strip_prefix("0X"))
                .unwrap_or(number);
            let end = number
                .find(|c: char| !c.is_ascii_hexdigit())
                .unwrap_or(number.len());
            if end == 0 {
                break;
            }
            *part = u32::from_str_radix(&number[..end], 16).map_err(|_| EINVAL)?;
            found += 1;
            match number[end..].strip_prefix(':') {
                Some(more) => rest = more,
                None => break,
            }
        }
        if found < 2 {
            return Err(EINVAL);
        }

        let [vendor, device, subvendor, subdevice, class, class_mask] = parts;

        Ok(Self {
            vendor,
            device,
            subvendor,
            subdevice,
            class,
            class_mask,
        })
    }

    /// Returns whether this ID covers a device, as `pci_match_one_device()` does.
    ///
    /// `ids` are the vendor, device, subvendor and subdevice of the device.
    pub(crate) fn covers(&self, ids: [u16; 4], class: u32) -> bool {
        let wanted = [self.vendor, self.device, self.subvendor, self.subdevice];

        wanted
            .into_iter()
            .zip(ids)
            .all(|(wanted, id)| wanted == Self::ANY || wanted == u32::from(id))
            && (self.class ^ class) & self.class_mask == 0
    }
}

impl fmt::Display for DynamicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!(
            "[{:04x}:{:04x}[{:04x}:{:04x}]] class {:#08x}/{:08x}",
            self.vendor,
            self.device,
            self.subvendor,
            self.subdevice,
            self.class,
            self.class_mask
        ))
    }
}
