# SPDX-License-Identifier: GPL-2.0
"""Reboots without a shutdown: by force, and into another kernel, while functions make DMA."""

import os

from . import selection
from .dpdk import Testpmd, bind, faults
from .pci import Function
from .qemu import Qemu
from .report import run, wait_for

# The users run until the kernel goes.
USERS = []


def use(test, driver):
    """Starts a testpmd whose functions send packets, by DMA, and a QEMU with two more."""
    pair, bus = [[Function(f"{name}.{number}") for number in range(2)] for name in ("pair", "bus")]
    run("dpdk-hugepages.py", "--setup", "256M")
    run("modprobe", driver.name)
    bind(driver.name, *pair)
    for function in bus:
        selection.bind(function, driver.name)
    USERS[:] = Testpmd(pair, mode="txonly"), Qemu(*(f"vfio-pci,host={function}" for function in bus))
    sender, _ = [user.__enter__() for user in USERS]
    test.check("testpmd takes the functions", sender.ready(), sender.text()[-2000:])
    sender.say("start")
    wait_for("packets", lambda: sender.count("TX"))
    test.eq("all are bus masters", [True] * 2, [function.is_master() for function in pair])
    test.eq("all are in use", ["D0"] * 4, [function.power() for function in pair + bus])


def go(*command):
    """Returns the end of this boot: a command, with the kernel's log of it kept."""
    return lambda: run("sh", "-c", f"dmesg >>$RESULTS/dmesg.log; {' '.join(command)}")


def reboot_forced(test, driver):
    """reboot -f with functions in use."""
    use(test, driver)
    return go("touch", "$RESULTS/reboot;", "sync;", "systemctl", "reboot", "--force", "--force")


def reboot_kexec(test, driver):
    """The same functions after that; then kexec, by which the machine is not reset."""
    use(test, driver)
    run("kexec", "-s", "-l", f"/lib/modules/{os.uname().release}/vmlinuz", "--reuse-cmdline")
    return go("sync;", "kexec", "-e")


def reboot_ended(test, driver):
    """The same functions in the new kernel, and their usual drivers."""
    test.eq("the IOMMU refused no DMA", [], faults())
    use(test, driver)
    for user in USERS:
        user.__exit__()
    names = "pair.0", "pair.1"
    bind("igb", *map(Function, names))
    test.eq("igb has them back", ["igb"] * 2, [Function(name).driver() for name in names])


# dpdk-devbind.py binds to no other name.
NEED_THE_NAME = TESTS = (reboot_forced, reboot_kexec, reboot_ended)
