# SPDX-License-Identifier: GPL-2.0
"""The vfio-pci that modprobe loads, with a function opened and closed."""

import fcntl
import os
import struct

from .package import check_vfio_pci
from .pci import Function, idle, used
from .report import run
from .selection import bind

SMOKE = "/src/tools/package/debian/tests/smoke"
# Of linux/vfio.h.
SET_IOMMU, SET_CONTAINER, GET_DEVICE_FD = 0x3B66, 0x3B68, 0x3B6A
TYPE1V2_IOMMU = 3


def loaded(test, driver):
    """Loads it, and opens and closes a function by its group."""
    # It passes on ours alone, and unloads it.
    run("sh", SMOKE, ok=driver.is_ours)
    check_vfio_pci(test, driver.is_ours)
    function = Function("disk")
    bind(function, driver.name)
    names = "vfio", function.group()
    container, group = (os.open(f"/dev/vfio/{name}", os.O_RDWR) for name in names)
    fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1V2_IOMMU)
    opened = fcntl.ioctl(group, GET_DEVICE_FD, bytearray(f"{function}\0".encode()))
    used(test, [function], driver)
    for file in opened, group, container:
        os.close(file)
    idle(test, [function], driver)


TESTS = (loaded,)
