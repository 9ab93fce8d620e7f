/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen: the vfio headers, which the kernel crate leaves out, and
 * the C helpers of this module.
 */
#include <linux/pci.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#include "helpers.h"
