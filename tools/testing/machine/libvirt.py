# SPDX-License-Identifier: GPL-2.0
"""libvirt, with `<hostdev managed='yes'>`: it chooses the driver, binds it, and takes it back.

Its domains have no disk: their firmware runs, and that sets up the functions.
"""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .pci import Function, Resets, idle, used
from .report import run, wait_for

XML = Path("/run/machine")
HOSTDEV = """<hostdev mode='subsystem' type='pci' managed='{managed}'>{driver}
    <source><address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>
    </source></hostdev>"""
# With a slot of pciehp that is off, QEMU unplugs a function without a guest that agrees.
DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
  <devices>
    <controller type='usb' model='none'/><memballoon model='none'/>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
    {devices}
  </devices>
  <qemu:commandline>
    <qemu:arg value='-global'/>
    <qemu:arg value='ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'/>
  </qemu:commandline>
</domain>"""


def virsh(*arguments, **options):
    return run("virsh", "--quiet", *arguments, **options)


def file(name, text):
    XML.mkdir(exist_ok=True)
    path = XML / f"{name}.xml"
    path.write_text(text)
    return path


def hostdev(function, driver, managed="yes"):
    parts = ("domain", "bus", "slot", "function"), re.split("[:.]", function.address)
    # libvirt finds vfio-pci by itself, whichever that is; only another name must be said.
    model = "" if driver.is_default else f"<driver model='{driver.name}'/>"
    return HOSTDEV.format(managed=managed, driver=model, **dict(zip(*parts)))


@contextlib.contextmanager
def domain(name, functions, driver, managed="yes"):
    """Defines a domain with `functions` until the end of the block."""
    devices = "".join(hostdev(function, driver, managed) for function in functions)
    virsh("define", file(name, DOMAIN.format(name=name, devices=devices)))
    try:
        yield
    finally:
        if virsh("domstate", name, ok=None).strip() == "running":
            virsh("destroy", name)
        virsh("undefine", name)


def at_once(command, *names):
    """Runs a command of virsh on some domains side by side."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: virsh(command, name), names))


def libvirt_start(test, driver):
    """Starts and destroys a domain with a PF of igb."""
    function = Function("pair.0")
    usual = function.driver()
    with domain("one", [function], driver), Resets() as resets:
        virsh("start", "one")
        used(test, [function], driver)
        virsh("destroy", "one")
        test.eq("its usual driver is back", usual, function.driver())
    test.check("it was reset", resets.flr > 0, resets.counts)
    test.seen("FLRs", resets.flr)


def libvirt_nodedev(test, driver):
    """Takes a function away from its driver by nodedev-detach, resets it, and gives it back."""
    function = Function("pair.1")
    usual = function.driver()
    named = [] if driver.is_default else ["--driver", driver.name]
    virsh("nodedev-detach", function.usable(), *named)
    test.eq("it is bound to the driver", driver.name, function.driver())
    wait_for("D3hot", lambda: function.power() == "D3hot")
    virsh("nodedev-reset", function.usable())
    virsh("nodedev-reattach", function.usable())
    test.eq("its usual driver is back", usual, function.driver())


def libvirt_hotplug(test, driver):
    """Plugs a function into a running domain and unplugs it, twice."""
    function = Function("pair.0")
    usual = function.driver()
    xml = file("hostdev", hostdev(function, driver))
    with domain("plug", [], driver):
        virsh("start", "plug")
        for _ in range(2):
            with Resets() as resets:
                virsh("attach-device", "plug", xml, "--live")
                used(test, [function], driver)
                virsh("detach-device", "plug", xml, "--live")
                wait_for("its usual driver", lambda: function.driver() == usual)
            test.check("it was reset", resets.flr > 0, resets.counts)
            test.seen("FLRs", resets.flr)


def libvirt_shared_bus(test, driver):
    """Two domains have a function each of one bus, and come and go independently."""
    functions = [Function("pair.0"), Function("pair.1")]
    with domain("a", functions[:1], driver), domain("b", functions[1:], driver):
        with Resets() as resets:
            at_once("start", "a", "b")
            used(test, functions, driver)
            virsh("destroy", "a")
            used(test, functions[1:], driver)
            virsh("start", "a")
            used(test, functions, driver)
            at_once("destroy", "a", "b")
        test.check("each was reset for each use", resets.flr >= 3, resets.counts)
        test.seen("FLRs of 3 uses", resets.flr)
        test.eq("no reset of the bus", 0, resets.bus)


def libvirt_bus_reset(test, driver):
    """A domain has both functions of a bus that only its reset can clean."""
    functions = [Function("bus.0"), Function("bus.1")]
    named = [] if driver.is_default else ["--driver", driver.name]
    for function in functions:
        virsh("nodedev-detach", function.usable(), *named)
    with domain("bus", functions, driver, managed="no"), Resets() as resets:
        virsh("start", "bus")
        used(test, functions, driver)
        virsh("destroy", "bus")
        idle(test, functions, driver)
    test.check("the bus was reset", resets.bus > 0, resets.counts)
    test.seen("bus resets", resets.bus)
    for function in functions:
        virsh("nodedev-reattach", function.usable())


TESTS = (libvirt_start, libvirt_nodedev, libvirt_hotplug, libvirt_shared_bus, libvirt_bus_reset)
