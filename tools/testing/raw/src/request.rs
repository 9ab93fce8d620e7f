// SPDX-License-Identifier: GPL-2.0

//! The requests that vfio and iommufd know.

use std::fmt;

/// The number of a request (`linux/vfio.h`, `linux/iommufd.h`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request(pub u32);

/// Names requests by their numbers.
macro_rules! requests {
    ($($name:ident = $number:literal),*) => {
        impl Request {
            $(pub const $name: Self = Request($number);)*
            const NAMES: &[(Self, &str)] = &[$((Self::$name, stringify!($name))),*];
        }
    };
}

requests! {
    SET_IOMMU = 0x3b66,
    GROUP_GET_STATUS = 0x3b67,
    GROUP_SET_CONTAINER = 0x3b68,
    GROUP_UNSET_CONTAINER = 0x3b69,
    GROUP_GET_DEVICE_FD = 0x3b6a,
    GET_INFO = 0x3b6b,
    GET_REGION_INFO = 0x3b6c,
    GET_IRQ_INFO = 0x3b6d,
    SET_IRQS = 0x3b6e,
    RESET = 0x3b6f,
    HOT_RESET_INFO = 0x3b70,
    HOT_RESET = 0x3b71,
    GET_GFX_DMABUF = 0x3b73,
    IOEVENTFD = 0x3b74,
    FEATURE = 0x3b75,
    BIND_IOMMUFD = 0x3b76,
    ATTACH_IOMMUFD_PT = 0x3b77,
    DETACH_IOMMUFD_PT = 0x3b78,
    IOAS_ALLOC = 0x3b81
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(known, _)| known == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}
