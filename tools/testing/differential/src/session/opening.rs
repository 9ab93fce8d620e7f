// SPDX-License-Identifier: GPL-2.0

//! Opening functions, call by call.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use raw::Pointer;
use vfio_bindings::bindings::vfio;

use super::Session;
use crate::call::{Block, Call, Handle, Request};
use crate::places;

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Through its group, in a container.
    Group,
    /// Through its character device, bound to an iommufd.
    Cdev,
}

impl Mode {
    /// Whether the kernel has it.
    pub fn exists(self) -> bool {
        let path = match self {
            Mode::Group => "/dev/vfio/vfio",
            Mode::Cdev => "/dev/iommu",
        };
        Path::new(path).exists()
    }
}

impl Session<'_> {
    /// The file of the group of a function. Two functions may be in one group.
    pub fn group(&self, function: u8) -> Handle {
        let group = |number| self.function(number)?.iommu_group().ok();
        match function {
            1 if group(0) != group(1) => Handle::Group(1),
            _ => Handle::Group(0),
        }
    }

    /// The path of the group of a function. That of one without an IOMMU begins with `noiommu-`.
    pub(super) fn group_path(&self, function: u8) -> Option<PathBuf> {
        let group = self.function(function)?.iommu_group().ok()?;
        let [path, unprotected] = [group.clone(), format!("noiommu-{group}")]
            .map(|name| Path::new("/dev/vfio").join(name));
        Some(if unprotected.exists() { unprotected } else { path })
    }

    /// Opens `device` and whatever it needs, and attaches it to an empty address space.
    pub fn open(&mut self, device: Handle) {
        match self.mode {
            Mode::Group => {
                let group = self.group(device.function());
                if !self.is_open(Handle::Container) {
                    self.call(Call::Open(Handle::Container));
                }
                if !self.is_open(group) {
                    self.call(Call::Open(group));
                    self.enter_container(group);
                }
                self.get_device(device.function());
            }
            Mode::Cdev => self.open_cdev(device, 0),
        }
    }

    /// Opens `device` by its character device, bound and attached to an iommufd.
    pub fn open_cdev(&mut self, device: Handle, iommufd: u8) {
        if !self.is_open(Handle::Iommufd(iommufd)) {
            self.call(Call::Open(Handle::Iommufd(iommufd)));
            self.allocate(iommufd);
        }
        self.call(Call::Open(device));
        self.call(Call::block(device, Request::BIND_IOMMUFD, bind(Handle::Iommufd(iommufd))));
        let ioas = self.ioas[usize::from(iommufd)];
        self.ask(device, Request::ATTACH_IOMMUFD_PT, &[12, 0, ioas]);
    }

    /// Puts a group into the container.
    pub fn enter_container(&mut self, group: Handle) {
        let container = Block::default().file(Handle::Container);
        self.call(Call::block(group, Request::GROUP_SET_CONTAINER, container));
        let kind = match self.place.name {
            places::NO_IOMMU => vfio::VFIO_NOIOMMU_IOMMU,
            _ => vfio::VFIO_TYPE1v2_IOMMU,
        };
        // CAST: A small number.
        let kind = Pointer::Number(kind as u16);
        self.call(Call::pointer(Handle::Container, Request::SET_IOMMU, kind));
    }

    /// Gets the device of a function from its group.
    pub fn get_device(&mut self, function: u8) {
        if let Some(name) = self.function(function).map(|of| of.bdf().to_string()) {
            let block = Block::default().raw(name.as_bytes()).raw(&[0]);
            self.call(Call::block(self.group(function), Request::GROUP_GET_DEVICE_FD, block));
        }
    }

    /// Allocates the address space of an iommufd.
    pub fn allocate(&mut self, iommufd: u8) {
        let outcome = self.ask(Handle::Iommufd(iommufd), Request::IOAS_ALLOC, &[12, 0, 0]);
        self.ioas[usize::from(iommufd)] = outcome.number(8).unwrap_or(0);
    }
}

/// The argument of `VFIO_DEVICE_BIND_IOMMUFD`.
pub fn bind(iommufd: Handle) -> Block {
    Block::words(&[16, 0]).file(iommufd).word(0)
}
