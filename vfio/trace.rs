// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of a function: `events/vfio_pci_rs` in tracefs.
//!
//! Each of these costs a call and a branch while nobody has the tracepoint enabled, and what is
//! timed for them the reading of a clock. None sleeps.
//!
//! C header: `bindings/trace.h`

use super::function::Function;
use crate::{
    bindings,
    reflck::ResetScope, //
};
use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

impl Function {
    /// Does `reset` on the slot or bus of the function, which affects so many `functions`, and
    /// traces when it begins, how it ends and how long it takes: `vfio_pci_rs_reset_begin`,
    /// `vfio_pci_rs_reset_end`. `hot` says whether a user has asked for it.
    pub(crate) fn traced_reset<R>(
        &self,
        scope: &ResetScope,
        hot: bool,
        functions: usize,
        reset: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let pdev = self.as_raw();
        let scope = name(scope).as_char_ptr();
        // CAST: A bus has no more than 256.
        let functions = functions as u32;

        // SAFETY: `self` holds a reference to the device, and the string is static.
        unsafe { bindings::vfio_rs_trace_reset_begin(pdev, scope, hot, functions) };
        let start = Instant::<Monotonic>::now();
        let result = reset();
        let duration = start.elapsed().as_nanos();
        let error = result.as_ref().err().map_or(0, |error| error.to_errno());
        // SAFETY: `self` holds a reference to the device, and the string is static.
        unsafe { bindings::vfio_rs_trace_reset_end(pdev, scope, hot, functions, error, duration) };

        result
    }

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
        // SAFETY: `self` holds a reference to the device, and the strings are static.
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
        // SAFETY: `self` holds a reference to the device, and the strings are static.
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
