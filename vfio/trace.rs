// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of a function, `events/vfio_pci_rs` in tracefs. None sleeps.
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
    /// `vfio_pci_rs_wait`: the function is about to wait for its domain.
    pub(crate) fn trace_wait(&self, scope: &ResetScope, purpose: &'static CStr) {
        // SAFETY: `self` holds a reference to the device, and the strings are static.
        unsafe {
            bindings::vfio_rs_trace_wait(self.as_raw(), name(scope), purpose.as_char_ptr());
        }
    }

    /// `vfio_pci_rs_claim`: the wait is over.
    pub(crate) fn trace_claim(&self, scope: &ResetScope, purpose: &'static CStr, waited: Delta) {
        // SAFETY: `self` holds a reference to the device, and the strings are static.
        unsafe {
            bindings::vfio_rs_trace_claim(
                self.as_raw(),
                name(scope),
                purpose.as_char_ptr(),
                waited.as_nanos(),
            );
        }
    }

    /// `vfio_pci_rs_settle`: the function left transit, in this state.
    pub(crate) fn trace_settle(&self, scope: &ResetScope, open: bool, bound: bool, dirty: bool) {
        // SAFETY: `self` holds a reference to the device, and the string is static.
        unsafe {
            bindings::vfio_rs_trace_settle(self.as_raw(), name(scope), open, bound, dirty);
        }
    }
}

/// A slot or bus reset that is traced: `vfio_pci_rs_reset_begin`, `vfio_pci_rs_reset_end`.
#[must_use = "the trace needs the end of the reset"]
pub(crate) struct TracedReset<'a> {
    function: &'a Function,
    scope: &'a ResetScope,
    hot: bool,
    functions: u32,
    start: Instant<Monotonic>,
}

impl<'a> TracedReset<'a> {
    /// Begins a reset that affects this number of `functions`. A user asked for a `hot` one.
    pub(crate) fn begin(
        function: &'a Function,
        scope: &'a ResetScope,
        hot: bool,
        functions: usize,
    ) -> Self {
        // CAST: A bus has no more than 256.
        let functions = functions as u32;

        // SAFETY: `function` holds a reference to the device, and the string is static.
        unsafe {
            bindings::vfio_rs_trace_reset_begin(function.as_raw(), name(scope), hot, functions);
        }

        Self {
            function,
            scope,
            hot,
            functions,
            start: Instant::now(),
        }
    }

    /// Returns how long the reset took.
    pub(crate) fn end(self, result: &Result) -> Delta {
        let error = result.as_ref().err().map_or(0, |error| error.to_errno());
        let duration = self.start.elapsed();

        // SAFETY: `function` holds a reference to the device, and the string is static.
        unsafe {
            bindings::vfio_rs_trace_reset_end(
                self.function.as_raw(),
                name(self.scope),
                self.hot,
                self.functions,
                error,
                duration.as_nanos(),
            );
        }

        duration
    }
}

/// Returns [`ResetScope::kind`] as a static C string.
fn name(scope: &ResetScope) -> *const kernel::ffi::c_char {
    let name = match scope {
        ResetScope::Slot { .. } => c"slot",
        ResetScope::Bus { .. } => c"bus",
        ResetScope::Private(_) => c"private",
    };

    name.as_char_ptr()
}
