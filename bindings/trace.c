// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints, and a function for each: those of the macros are inline, and
 * declare_trace! of the kernel crate only works for its own bindings.
 */

#define CREATE_TRACE_POINTS
#include "trace.h"

#include "helpers.h"

void vfio_rs_trace_wait(struct pci_dev *pdev, const char *scope,
			const char *purpose)
{
	trace_vfio_pci_rs_wait(pdev, scope, purpose);
}

void vfio_rs_trace_claim(struct pci_dev *pdev, const char *scope,
			 const char *purpose, s64 waited_ns)
{
	trace_vfio_pci_rs_claim(pdev, scope, purpose, waited_ns);
}

void vfio_rs_trace_settle(struct pci_dev *pdev, const char *scope, bool open,
			  bool bound, bool dirty)
{
	trace_vfio_pci_rs_settle(pdev, scope, open, bound, dirty);
}

void vfio_rs_trace_reset_begin(struct pci_dev *pdev, const char *scope,
			       bool hot, unsigned int functions)
{
	trace_vfio_pci_rs_reset_begin(pdev, scope, hot, functions);
}

void vfio_rs_trace_reset_end(struct pci_dev *pdev, const char *scope, bool hot,
			     unsigned int functions, int error, s64 duration_ns)
{
	trace_vfio_pci_rs_reset_end(pdev, scope, hot, functions, error,
				    duration_ns);
}
