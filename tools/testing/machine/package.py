# SPDX-License-Identifier: GPL-2.0
"""The package of the modules in a Debian that has its kernel and nothing of ours, over reboots."""

from pathlib import Path

from .pci import Function
from .report import REBOOT, run
from .selection import bind, is_ours, unbind

OPTIONS = Path("/etc/modprobe.d/options.conf")


def apt(*arguments):
    return run("apt-get", "--yes", "--no-install-recommends", *arguments, limit=1200)


def check_vfio_pci(test, ours):
    """Checks whether the vfio-pci that modprobe loads is ours, and that it binds a function."""
    test.check("it is not loaded yet", not Path("/sys/module/vfio_pci").exists())
    run("modprobe", "vfio-pci")
    test.eq("a function has our files", ours, is_ours(Function("disk"), "vfio-pci"))


def package_installed(test, _):
    """Installs the packages and an option for vfio-pci; then the machine boots again."""
    check_vfio_pci(test, ours=False)
    apt("install", *Path("/mnt").glob("vfio-pci-rs-common*.deb"),
        *Path("/mnt").glob("vfio-pci-rs-modules*.deb"))  # fmt: skip
    said = run("vfio-pci-doctor", ok=None)
    test.check("the doctor sees the old module", "loaded is the kernel's own" in said, said)
    OPTIONS.write_text("options vfio-pci disable_idle_d3=1\n")
    return REBOOT


def package_booted(test, _):
    """modprobe vfio-pci after the boot; then purges them, and the machine boots again."""
    check_vfio_pci(test, ours=True)
    option = Path("/sys/module/vfio_pci/parameters/disable_idle_d3").read_text().strip()
    test.eq("the option reaches it", "Y", option)
    function, stranger = Function("bus.0"), Function("bus.1")
    said = run("vfio-pci-doctor")
    test.check("nothing is missing", "Nothing is missing." in said, said)
    bind(function, "vfio-pci")
    said = run("vfio-pci-doctor", ok=False)
    test.check("the doctor sees a stranger", f"not viable: {stranger} in it is bound" in said, said)
    unbind(function)
    apt("purge", "vfio-pci-rs-*")
    return REBOOT


def package_purged(test, _):
    """The kernel's vfio-pci is back."""
    check_vfio_pci(test, ours=False)


TESTS = (package_installed, package_booted, package_purged)
