// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of a function: `events/vfio_pci_rs` in tracefs.
//!
//! Each of these costs a call and a branch while nobody has the tracepoint enabled. None sleeps.
//!
//! C header: `bindings/trace.h`

use super::{
    address::ResetScope,
    function::Function, //
};
use crate::bindings;
use kernel::{
    prelude::*,
    time::Delta, //
};

/// A reset of a slot or bus that is under way, for its tracepoints.
pub(crate) struct TracedReset<'a> {
    pub(crate) function: &'a Function,
    pub(crate) scope: &'a ResetScope,
    /// Whether a user has asked for it.
    pub(crate) hot: bool,
    /// How many functions it affects.
    pub(crate) functions: usize,
}

impl TracedReset<'_> {
    /// Traces that the reset begins: `vfio_pci_rs_reset_begin`.
    pub(crate) fn begin(&self) {
        // SAFETY: `function` holds a reference to the device, and the string is static.
        unsafe {
            bindings::vfio_rs_trace_reset_begin(
                self.function.as_raw(),
                name(self.scope).as_char_ptr(),
                self.hot,
                self.functions(),
            )
        };
    }

    /// Traces how the reset has ended, and how long it took: `vfio_pci_rs_reset_end`.
    pub(crate) fn end<R>(&self, result: &Result<R>, duration: Delta) {
        let error = result.as_ref().err().map_or(0, |error| error.to_errno());

        // SAFETY: As above.
        unsafe {
            bindings::vfio_rs_trace_reset_end(
                self.function.as_raw(),
                name(self.scope).as_char_ptr(),
                self.hot,
                self.functions(),
                error,
                duration.as_nanos(),
            )
        };
    }

    fn functions(&self) -> u32 {
        // CAST: A bus has no more than 256.
        self.functions as u32
    }
}

impl Function {
    /// Traces that the domain of the function is about to be waited for: `vfio_pci_rs_wait`.
    pub(crate) fn trace_wait(&self, scope: &ResetScope, purpose: &'static CStr) {
        // SAFETY: `self` holds a reference to the device, and the strings are static.
        unsafe {
            bindings::vfio_rs_trace_wait(
                self.as_raw(),
                name(scope).as_char_ptr(),
                purpose.as_char_ptr(),
            )
        };
    }

    /// Traces that the domain has been waited for, and how long: `vfio_pci_rs_claim`.
    pub(crate) fn trace_claim(&self, scope: &ResetScope, purpose: &'static CStr, waited: Delta) {
        // SAFETY: As above.
        unsafe {
            bindings::vfio_rs_trace_claim(
                self.as_raw(),
                name(scope).as_char_ptr(),
                purpose.as_char_ptr(),
                waited.as_nanos(),
            )
        };
    }

    /// Traces where the function has come to: `vfio_pci_rs_settle`.
    pub(crate) fn trace_settle(&self, scope: &ResetScope, open: bool, bound: bool, dirty: bool) {
        // SAFETY: As above.
        unsafe {
            bindings::vfio_rs_trace_settle(
                self.as_raw(),
                name(scope).as_char_ptr(),
                open,
                bound,
                dirty,
            )
        };
    }
}

/// What tracepoints call a scope: as [`ResetScope::kind`] does, for C.
fn name(scope: &ResetScope) -> &'static CStr {
    match scope {
        ResetScope::Slot { .. } => c"slot",
        ResetScope::Bus { .. } => c"bus",
        ResetScope::Private(_) => c"private",
    }
}
