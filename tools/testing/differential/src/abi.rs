// SPDX-License-Identifier: GPL-2.0

//! The user API of vfio as calls are made of it here: requests with their names and what their
//! arguments begin with (`linux/vfio.h`).

use std::fmt;
use std::mem::offset_of;
use std::mem::size_of;

use iommufd_bindings::iommufd;
use vfio_bindings::bindings::vfio;

/// A request of `ioctl(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request(pub u32);

/// What a request's argument begins with.
#[derive(Debug)]
pub struct Layout {
    name: &'static str,
    /// The least size of the argument that is accepted; nothing if it has none.
    pub minimum: u32,
    /// Names and sizes of its fields.
    pub fields: &'static [(&'static str, usize)],
}

impl Request {
    /// Request `number` of vfio.
    pub const fn vfio(number: u32) -> Self {
        Request(((vfio::VFIO_TYPE as u32) << 8) | (vfio::VFIO_BASE + number))
    }

    pub const SET_IOMMU: Self = Self::vfio(2);
    pub const GROUP_GET_STATUS: Self = Self::vfio(3);
    pub const GROUP_SET_CONTAINER: Self = Self::vfio(4);
    pub const GROUP_UNSET_CONTAINER: Self = Self::vfio(5);
    pub const GROUP_GET_DEVICE_FD: Self = Self::vfio(6);
    pub const GET_INFO: Self = Self::vfio(7);
    pub const GET_REGION_INFO: Self = Self::vfio(8);
    pub const GET_IRQ_INFO: Self = Self::vfio(9);
    pub const SET_IRQS: Self = Self::vfio(10);
    pub const RESET: Self = Self::vfio(11);
    pub const GET_PCI_HOT_RESET_INFO: Self = Self::vfio(12);
    pub const PCI_HOT_RESET: Self = Self::vfio(13);
    pub const IOEVENTFD: Self = Self::vfio(16);
    pub const FEATURE: Self = Self::vfio(17);
    pub const BIND_IOMMUFD: Self = Self::vfio(18);
    pub const ATTACH_IOMMUFD_PT: Self = Self::vfio(19);
    pub const DETACH_IOMMUFD_PT: Self = Self::vfio(20);
    /// `IOMMU_IOAS_ALLOC` of iommufd.
    pub const IOAS_ALLOC: Self =
        Request(((iommufd::IOMMUFD_TYPE as u32) << 8) | iommufd::IOMMUFD_CMD_IOAS_ALLOC);

    /// All numbers of vfio's type that have a meaning for any of its files, and some more.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..30).map(Self::vfio)
    }

    /// Those that a device is asked.
    pub fn of_device() -> impl Iterator<Item = Self> {
        (7..24).map(Self::vfio)
    }

    /// What its argument begins with.
    pub fn layout(self) -> Layout {
        let layout = |name, minimum: usize, fields| Layout {
            name,
            // CAST: Sizes of a few bytes.
            minimum: minimum as u32,
            fields,
        };
        match self {
            Self::SET_IOMMU => layout("VFIO_SET_IOMMU", 0, &[]),
            Self::GROUP_GET_STATUS => layout("VFIO_GROUP_GET_STATUS", 8, ARGSZ_FLAGS),
            Self::GROUP_SET_CONTAINER => layout("VFIO_GROUP_SET_CONTAINER", 4, &[("container", 4)]),
            Self::GROUP_UNSET_CONTAINER => layout("VFIO_GROUP_UNSET_CONTAINER", 0, &[]),
            Self::GROUP_GET_DEVICE_FD => layout("VFIO_GROUP_GET_DEVICE_FD", 0, &[]),
            Self::GET_INFO => layout(
                "VFIO_DEVICE_GET_INFO",
                offset_of!(vfio::vfio_device_info, num_irqs) + 4,
                &[
                    ("argsz", 4),
                    ("flags", 4),
                    ("num_regions", 4),
                    ("num_irqs", 4),
                    ("cap_offset", 4),
                ],
            ),
            Self::GET_REGION_INFO => layout(
                "VFIO_DEVICE_GET_REGION_INFO",
                size_of::<vfio::vfio_region_info>(),
                &[
                    ("argsz", 4),
                    ("flags", 4),
                    ("index", 4),
                    ("cap_offset", 4),
                    ("size", 8),
                    ("offset", 8),
                ],
            ),
            Self::GET_IRQ_INFO => layout(
                "VFIO_DEVICE_GET_IRQ_INFO",
                size_of::<vfio::vfio_irq_info>(),
                &[("argsz", 4), ("flags", 4), ("index", 4), ("count", 4)],
            ),
            Self::SET_IRQS => layout(
                "VFIO_DEVICE_SET_IRQS",
                offset_of!(vfio::vfio_irq_set, count) + 4,
                &[
                    ("argsz", 4),
                    ("flags", 4),
                    ("index", 4),
                    ("start", 4),
                    ("count", 4),
                ],
            ),
            Self::RESET => layout("VFIO_DEVICE_RESET", 0, &[]),
            Self::GET_PCI_HOT_RESET_INFO => layout(
                "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
                offset_of!(vfio::vfio_pci_hot_reset_info, count) + 4,
                &[("argsz", 4), ("flags", 4), ("count", 4)],
            ),
            Self::PCI_HOT_RESET => layout(
                "VFIO_DEVICE_PCI_HOT_RESET",
                offset_of!(vfio::vfio_pci_hot_reset, count) + 4,
                &[("argsz", 4), ("flags", 4), ("count", 4)],
            ),
            Self::IOEVENTFD => layout(
                "VFIO_DEVICE_IOEVENTFD",
                offset_of!(vfio::vfio_device_ioeventfd, fd) + 4,
                &[
                    ("argsz", 4),
                    ("flags", 4),
                    ("offset", 8),
                    ("data", 8),
                    ("fd", 4),
                ],
            ),
            Self::FEATURE => layout("VFIO_DEVICE_FEATURE", 8, ARGSZ_FLAGS),
            Self::BIND_IOMMUFD => layout(
                "VFIO_DEVICE_BIND_IOMMUFD",
                16,
                &[("argsz", 4), ("flags", 4), ("iommufd", 4), ("out_devid", 4)],
            ),
            Self::ATTACH_IOMMUFD_PT => layout(
                "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
                12,
                &[("argsz", 4), ("flags", 4), ("pt_id", 4), ("pasid", 4)],
            ),
            Self::DETACH_IOMMUFD_PT => layout(
                "VFIO_DEVICE_DETACH_IOMMUFD_PT",
                8,
                &[("argsz", 4), ("flags", 4), ("pasid", 4)],
            ),
            Self::IOAS_ALLOC => layout(
                "IOMMU_IOAS_ALLOC",
                size_of::<iommufd::iommu_ioas_alloc>(),
                &[("size", 4), ("flags", 4), ("out_ioas_id", 4)],
            ),
            _ => layout("", 8, ARGSZ_FLAGS),
        }
    }
}

const ARGSZ_FLAGS: &[(&str, usize)] = &[("argsz", 4), ("flags", 4)];

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layout().name {
            "" => write!(f, "{:#x}", self.0),
            name => f.write_str(name),
        }
    }
}

/// Numbers and flags of `VFIO_DEVICE_FEATURE`.
pub mod feature {
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_GET as GET;
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY as LOW_POWER_ENTRY;
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP as LOW_POWER_ENTRY_WITH_WAKEUP;
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_LOW_POWER_EXIT as LOW_POWER_EXIT;
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_MASK as MASK;
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_PROBE as PROBE;
    pub use vfio_bindings::bindings::vfio::VFIO_DEVICE_FEATURE_SET as SET;

    /// `VFIO_DEVICE_FEATURE_DMA_BUF`.
    pub const DMA_BUF: u32 = 11;
}

/// Indices of regions.
pub mod region {
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX as CONFIG;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_REGIONS as COUNT;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_ROM_REGION_INDEX as ROM;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_VGA_REGION_INDEX as VGA;

    /// Where a region begins in the device's file (`vfio_pci_core.h`).
    pub const SHIFT: u32 = 40;
}

/// Indices of interrupts, and flags of `VFIO_DEVICE_SET_IRQS`.
pub mod irq {
    pub use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_MASK as MASK;
    pub use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_TRIGGER as TRIGGER;
    pub use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_UNMASK as UNMASK;
    pub use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_BOOL as BOOL;
    pub use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_EVENTFD as EVENTFD;
    pub use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_NONE as NONE;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_ERR_IRQ_INDEX as ERR;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_INTX_IRQ_INDEX as INTX;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_MSIX_IRQ_INDEX as MSIX;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_MSI_IRQ_INDEX as MSI;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_IRQS as COUNT;
    pub use vfio_bindings::bindings::vfio::VFIO_PCI_REQ_IRQ_INDEX as REQ;
}

/// The flags of `VFIO_DEVICE_IOEVENTFD` that say how many bytes are written.
pub mod ioeventfd {
    /// All of them, with the number of bytes.
    pub const WIDTHS: [u32; 4] = [1, 2, 4, 8];
}

/// `VFIO_TYPE1v2_IOMMU`.
pub const TYPE1V2: u16 = vfio::VFIO_TYPE1v2_IOMMU as u16;
