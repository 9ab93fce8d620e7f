// SPDX-License-Identifier: GPL-2.0

//! Bindings to `linux/vfio.h`, `linux/vfio_pci_core.h` and the module's C helpers.
//!
//! bindgen generates them when the module is built (see `Makefile`), with the parameters of the
//! kernel crate. Types that [`kernel::bindings`] has come from there, so both share pointers.
//!
//! - [`work`]: a gap in the kernel crate

pub(crate) mod work;

#[allow(
    clippy::all,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::cast_lossless,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
mod generated {
    use kernel::{
        bindings::*,
        ffi, //
    };
    use pin_init::MaybeZeroable;

    include!(concat!(
        env!("VFIO_PCI_RS_OBJ"),
        "/bindings/bindings_generated.rs"
    ));
}

pub(crate) use generated::*;
pub(crate) use kernel::bindings::*;
