# SPDX-License-Identifier: GPL-2.0
"""libvirt, with `<hostdev managed='yes'>`: it chooses the driver, binds it, and takes it back.

Its domains have no disk: their firmware runs, and that sets up the functions.
"""

import threading
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
    domain, bus, slot = function.address.split(":")
    slot, number = slot.split(".")
    # libvirt finds vfio-pci by itself, whichever that is; only another name must be said.
    model = "" if driver.is_default else f"<driver model='{driver.name}'/>"
    return HOSTDEV.format(
        domain=domain, bus=bus, slot=slot, function=number, managed=managed, driver=model
    )


class Domain:
    """A domain with `functions`, until the end of the block."""

    def __init__(self, name, functions, driver, managed="yes"):
        self.name = name
        devices = "".join(hostdev(function, driver, managed) for function in functions)
        self.xml = file(name, DOMAIN.format(name=name, devices=devices))

    def __enter__(self):
        virsh("define", self.xml)
        return self

    def __exit__(self, *_):
        if virsh("domstate", self.name, ok=None).strip() == "running":
            self.destroy()
        virsh("undefine", self.name)

    def start(self):
        virsh("start", self.name)

    def destroy(self):
        virsh("destroy", self.name)


def at_once(*functions):
    """Runs functions side by side, and raises the first error of them."""
    errors = []

    def guard(function):
        try:
            function()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guard, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def libvirt_start(test, driver):
    """Starts and destroys a domain with a PF of igb."""
    function = Function("pair.0")
    usual = function.driver()
    with Domain("one", [function], driver) as domain, Resets() as resets:
        domain.start()
        used(test, [function], driver)
        domain.destroy()
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
    with Domain("plug", [], driver) as domain:
        domain.start()
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
    with Domain("a", functions[:1], driver) as a, Domain("b", functions[1:], driver) as b:
        with Resets() as resets:
            at_once(a.start, b.start)
            used(test, functions, driver)
            a.destroy()
            used(test, functions[1:], driver)
            a.start()
            used(test, functions, driver)
            at_once(a.destroy, b.destroy)
        test.check("each was reset for each use", resets.flr >= 3, resets.counts)
        test.seen("FLRs of 3 uses", resets.flr)
        test.eq("no reset of the bus", 0, resets.bus)


def libvirt_bus_reset(test, driver):
    """A domain has both functions of a bus that only its reset can clean."""
    functions = [Function("bus.0"), Function("bus.1")]
    named = [] if driver.is_default else ["--driver", driver.name]
    for function in functions:
        virsh("nodedev-detach", function.usable(), *named)
    with Domain("bus", functions, driver, managed="no") as domain:
        with Resets() as resets:
            domain.start()
            used(test, functions, driver)
            domain.destroy()
            idle(test, functions, driver)
    test.check("the bus was reset", resets.bus > 0, resets.counts)
    test.seen("bus resets", resets.bus)
    for function in functions:
        virsh("nodedev-reattach", function.usable())


TESTS = (libvirt_start, libvirt_nodedev, libvirt_hotplug, libvirt_shared_bus, libvirt_bus_reset)
