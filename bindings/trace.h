/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: waits for a reset domain, operations in it, and its resets.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vfio_pci_rs

#if !defined(VFIO_PCI_RS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VFIO_PCI_RS_TRACE_H

#include <linux/pci.h>
#include <linux/tracepoint.h>

TRACE_EVENT(vfio_pci_rs_wait,

	TP_PROTO(struct pci_dev *pdev, const char *scope, const char *purpose),

	TP_ARGS(pdev, scope, purpose),

	TP_STRUCT__entry(
		__string(function, pci_name(pdev))
		__string(scope, scope)
		__string(purpose, purpose)
	),

	TP_fast_assign(
		__assign_str(function);
		__assign_str(scope);
		__assign_str(purpose);
	),

	TP_printk("function=%s scope=%s purpose=%s", __get_str(function),
		  __get_str(scope), __get_str(purpose))
);

TRACE_EVENT(vfio_pci_rs_claim,

	TP_PROTO(struct pci_dev *pdev, const char *scope, const char *purpose,
		 s64 waited_ns),

	TP_ARGS(pdev, scope, purpose, waited_ns),

	TP_STRUCT__entry(
		__string(function, pci_name(pdev))
		__string(scope, scope)
		__string(purpose, purpose)
		__field(s64, waited_ns)
	),

	TP_fast_assign(
		__assign_str(function);
		__assign_str(scope);
		__assign_str(purpose);
		__entry->waited_ns = waited_ns;
	),

	TP_printk("function=%s scope=%s purpose=%s waited_ns=%lld",
		  __get_str(function), __get_str(scope),
		  __get_str(purpose), __entry->waited_ns)
);

TRACE_EVENT(vfio_pci_rs_settle,

	TP_PROTO(struct pci_dev *pdev, const char *scope, bool open, bool bound,
		 bool dirty),

	TP_ARGS(pdev, scope, open, bound, dirty),

	TP_STRUCT__entry(
		__string(function, pci_name(pdev))
		__string(scope, scope)
		__field(bool, open)
		__field(bool, bound)
		__field(bool, dirty)
	),

	TP_fast_assign(
		__assign_str(function);
		__assign_str(scope);
		__entry->open = open;
		__entry->bound = bound;
		__entry->dirty = dirty;
	),

	TP_printk("function=%s scope=%s open=%u bound=%u dirty=%u",
		  __get_str(function), __get_str(scope), __entry->open,
		  __entry->bound, __entry->dirty)
);

TRACE_EVENT(vfio_pci_rs_reset_begin,

	TP_PROTO(struct pci_dev *pdev, const char *scope, bool hot,
		 unsigned int functions),

	TP_ARGS(pdev, scope, hot, functions),

	TP_STRUCT__entry(
		__string(function, pci_name(pdev))
		__string(scope, scope)
		__field(bool, hot)
		__field(unsigned int, functions)
	),

	TP_fast_assign(
		__assign_str(function);
		__assign_str(scope);
		__entry->hot = hot;
		__entry->functions = functions;
	),

	TP_printk("function=%s scope=%s hot=%u functions=%u",
		  __get_str(function), __get_str(scope), __entry->hot,
		  __entry->functions)
);

TRACE_EVENT(vfio_pci_rs_reset_end,

	TP_PROTO(struct pci_dev *pdev, const char *scope, bool hot,
		 unsigned int functions, int error, s64 duration_ns),

	TP_ARGS(pdev, scope, hot, functions, error, duration_ns),

	TP_STRUCT__entry(
		__string(function, pci_name(pdev))
		__string(scope, scope)
		__field(bool, hot)
		__field(unsigned int, functions)
		__field(int, error)
		__field(s64, duration_ns)
	),

	TP_fast_assign(
		__assign_str(function);
		__assign_str(scope);
		__entry->hot = hot;
		__entry->functions = functions;
		__entry->error = error;
		__entry->duration_ns = duration_ns;
	),

	TP_printk("function=%s scope=%s hot=%u functions=%u error=%d duration_ns=%lld",
		  __get_str(function), __get_str(scope), __entry->hot,
		  __entry->functions, __entry->error, __entry->duration_ns)
);

#endif /* VFIO_PCI_RS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
