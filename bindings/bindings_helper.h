/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: the vfio headers that the kernel crate's bindings leave
 * out, and the C helpers of this module.
 */
#include <linux/pci.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#include "helpers.h"
