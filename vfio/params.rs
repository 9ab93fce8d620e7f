// SPDX-License-Identifier: GPL-2.0

//! The module parameters, which `bindings/params.c` defines.
//!
//! All but `serialize`, `skip_clean_reset`, `background_reset`, `bus_reset` and `strict` are those
//! of vfio-pci, with the same names, types and permissions.

use crate::bindings;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// The name of the PCI driver: that of vfio-pci if the module is built to take its place.
pub(crate) const DRIVER_NAME: &CStr = if cfg!(VFIO_PCI_RS_IN_PLACE) {
    c"vfio-pci"
} else {
    c"vfio_pci_rs"
};

/// The module parameters at the time of [`Params::read`].
pub(crate) struct Params {
    /// PCI IDs to bind to, separated by commas. Fixed at load.
    pub(crate) ids: &'static CStr,
    /// PCI IDs of devices whose functions must not be reset at the same time, separated by commas.
    /// Fixed at load.
    pub(crate) serialize: &'static CStr,
    /// Skip the reset at open of a function that is proven clean. Can change at any time.
    pub(crate) skip_clean_reset: bool,
    /// Reset functions after close() has returned, and when they are bound. Can change at any time.
    pub(crate) background_reset: bool,
    /// Reset the slot or bus even if the function can be reset alone. Can change at any time.
    pub(crate) bus_reset: bool,
    /// Refuse to open a function that is dirty and cannot be reset. Can change at any time.
    pub(crate) strict: bool,
    /// Do not use PCI 2.3 style INTx masking. Can change at any time.
    pub(crate) nointxmask: bool,
    /// Deny user space the legacy VGA addresses of a VGA device. Fixed at load.
    pub(crate) disable_vga: bool,
    /// Leave unused functions in D0. Can change at any time.
    pub(crate) disable_idle_d3: bool,
    /// Let root enable the VFs of a PF. Can change at any time.
    pub(crate) enable_sriov: bool,
    /// Bind to functions on the denylist. Fixed at load.
    pub(crate) disable_denylist: bool,
}

impl Params {
    pub(crate) fn read() -> Self {
        let params = &raw const bindings::vfio_rs_params;

        // SAFETY: The parameters are static. The strings are NUL-terminated and not written after
        // the module's init function has begun. The others are single bytes, 0 or 1, that root can
        // write at any time.
        unsafe {
            Self {
                ids: CStr::from_char_ptr((&raw const (*params).ids).cast()),
                serialize: CStr::from_char_ptr((&raw const (*params).serialize).cast()),
                skip_clean_reset: (&raw const (*params).skip_clean_reset).read_volatile(),
                background_reset: (&raw const (*params).background_reset).read_volatile(),
                bus_reset: (&raw const (*params).bus_reset).read_volatile(),
                strict: (&raw const (*params).strict).read_volatile(),
                nointxmask: (&raw const (*params).nointxmask).read_volatile(),
                disable_vga: (&raw const (*params).disable_vga).read_volatile(),
                disable_idle_d3: (&raw const (*params).disable_idle_d3).read_volatile(),
                enable_sriov: (&raw const (*params).enable_sriov).read_volatile(),
                disable_denylist: (&raw const (*params).disable_denylist).read_volatile(),
            }
        }
    }
}

/// A parameter that root can override for one function.
pub(crate) struct Override(Atomic<i32>);

impl Override {
    const NONE: i32 = -1;

    fn new() -> Self {
        Self(Atomic::new(Self::NONE))
    }

    pub(crate) fn get(&self) -> Option<bool> {
        match self.0.load(Relaxed) {
            Self::NONE => None,
            value => Some(value != 0),
        }
    }

    pub(crate) fn set(&self, value: Option<bool>) {
        self.0.store(value.map_or(Self::NONE, i32::from), Relaxed);
    }
}

/// The parameters that root can override for one function.
pub(crate) struct Overrides {
    pub(crate) skip_clean_reset: Override,
    pub(crate) background_reset: Override,
    pub(crate) bus_reset: Override,
    pub(crate) strict: Override,
}

impl Overrides {
    pub(super) fn new() -> Self {
        Self {
            skip_clean_reset: Override::new(),
            background_reset: Override::new(),
            bus_reset: Override::new(),
            strict: Override::new(),
        }
    }

    /// Returns the parameters of the function.
    pub(super) fn params(&self) -> Params {
        let params = Params::read();
        let or = |own: &Override, default| own.get().unwrap_or(default);

        Params {
            skip_clean_reset: or(&self.skip_clean_reset, params.skip_clean_reset),
            background_reset: or(&self.background_reset, params.background_reset),
            bus_reset: or(&self.bus_reset, params.bus_reset),
            strict: or(&self.strict, params.strict),
            ..params
        }
    }
}
