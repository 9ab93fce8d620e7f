# SPDX-License-Identifier: GPL-2.0
"""The package of the modules in a Debian that has its kernel and nothing of ours, over reboots."""

from pathlib import Path

from .pci import Function
from .report import REBOOT, run
from .selection import is_ours


def apt(*arguments):
    return run("apt-get", "--yes", "--no-install-recommends", *arguments, limit=1200)


def check_vfio_pci(test, ours):
    """Checks whether the vfio-pci that modprobe loads is ours, and that it binds a function."""
    test.eq("modinfo knows it", ours, "Rust" in run("modinfo", "vfio-pci"))
    test.check("it is not loaded yet", not Path("/sys/module/vfio_pci").exists())
    run("modprobe", "vfio-pci")
    test.eq("it has our parameters", ours, Path("/sys/module/vfio_pci/parameters/strict").exists())
    test.eq("a function has our files", ours, is_ours(Function("disk"), "vfio-pci"))


def package_installed(test, _):
    """Installs the packages for this kernel; then the machine boots again."""
    check_vfio_pci(test, ours=False)
    apt("install", *Path("/mnt").glob("vfio-pci-rs-common*.deb"),
        *Path("/mnt").glob("vfio-pci-rs-modules*.deb"))  # fmt: skip
    return REBOOT


def package_booted(test, _):
    """modprobe vfio-pci after the boot; then purges them, and the machine boots again."""
    check_vfio_pci(test, ours=True)
    apt("purge", "vfio-pci-rs-*")
    return REBOOT


def package_purged(test, _):
    """The kernel's vfio-pci is back."""
    check_vfio_pci(test, ours=False)


TESTS = (package_installed, package_booted, package_purged)
