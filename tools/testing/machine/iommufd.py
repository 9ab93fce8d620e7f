# SPDX-License-Identifier: GPL-2.0
"""What of QEMU needs iommufd, which Debian's kernel lacks."""

from .qemu import qemu_iommufd

TESTS = (qemu_iommufd,)
