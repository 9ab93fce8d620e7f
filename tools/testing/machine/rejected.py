# SPDX-License-Identifier: GPL-2.0
"""The package of the modules where Secure Boot is on: they are not signed."""

from .report import run


def rejected(test, _):
    """The kernel rejects them, and the doctor says why."""
    said = run("modprobe", "vfio-pci", ok=False)
    test.check("the kernel rejects them", "Key was rejected by service" in said, said)
    said = run("vfio-pci-doctor", ok=False)
    why = "Secure Boot is on, and the module is not signed"
    test.check("the doctor says why", why in said, said)


TESTS = (rejected,)
