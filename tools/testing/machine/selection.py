# SPDX-License-Identifier: GPL-2.0
"""How programs that Debian does not have find the driver: their logic, on sysfs and modules.alias.

Looked up in KubeVirt (pci_device.go), the SR-IOV network device plugin (factory.go), NVIDIA's
go-nvlib (nvpassthrough) and Kata (runtime-rs).
"""

import os
import re
from pathlib import Path

from .pci import Function
from .report import run

DRIVERS = Path("/sys/bus/pci/drivers")
# The parts of a modalias, as go-nvlib splits it.
PARTS = re.compile("pci:v(.*)d(.*)sv(.*)sd(.*)bc(.*)sc(.*)i(.*)")


def nvlib(function):
    """Returns the driver that go-nvlib binds: by the alias with the fewest wildcards, the first."""
    wanted = PARTS.match(function.read("modalias")).groups()
    best, module = 8, "vfio-pci"
    aliases = Path(f"/lib/modules/{os.uname().release}/modules.alias").read_text()
    for line in aliases.splitlines():
        _, pattern, name = line.split(maxsplit=2) if line.startswith("alias") else ("", "", "")
        found = PARTS.match(pattern.removeprefix("vfio_"))
        if not found or not pattern.startswith("vfio_pci:"):
            continue
        wild = found.groups().count("*")
        if all(has in ("*", want) for has, want in zip(found.groups(), wanted)) and wild < best:
            best, module = wild, name
    run("modprobe", module)
    return module if (DRIVERS / module).exists() else module.replace("_", "-")


def selection_nvlib(test, driver):
    """go-nvlib: the best alias vfio_pci:*, then driver_override and bind."""
    function = Function("disk")
    chosen = nvlib(function)
    test.eq("it chooses vfio-pci", "vfio-pci", chosen)
    ours = is_ours(function, chosen)
    test.eq("that is ours in its place only", driver.modset == "in-place", ours)
    test.seen("chosen is ours", ours)


def is_ours(function, name):
    """Binds a function to the driver `name`. Returns whether that is ours, by its files."""
    bind(function, name)
    ours = (function.path / "vfio_reset").exists()
    unbind(function)
    return ours


def bind(function, name):
    function.write("driver_override", name)
    if function.driver() != "none":
        function.write("driver/unbind", function)
    (DRIVERS / name / "bind").write_text(function.address)


def unbind(function):
    function.write("driver/unbind", function)
    function.write("driver_override", "\n")
    Path("/sys/bus/pci/drivers_probe").write_text(function.address)


def selection_names(test, driver):
    """KubeVirt and the SR-IOV device plugin: a function whose driver is called vfio-pci."""
    function = Function("disk")
    run("modprobe", driver.name)
    bind(function, driver.name)
    # Both pass the file of the group to a container.
    test.check("the group has a file", Path(f"/dev/vfio/{function.group()}").is_char_device())
    taken = function.driver() == "vfio-pci"
    test.eq("they take it if it is called so", driver.is_default, taken)
    test.seen("taken", taken)
    unbind(function)
    test.eq("its usual driver is back", "nvme", function.driver())


def selection_kata(test, driver):
    """Kata: the ID of a function to new_id of vfio-pci, then bind."""
    function = Function("disk")
    run("modprobe", "vfio-pci")
    function.write("driver/unbind", function)
    ids = f"{function.read('vendor')[2:]} {function.read('device')[2:]}"
    (DRIVERS / "vfio-pci/new_id").write_text(ids)
    # new_id binds by itself.
    test.eq("it is bound to vfio-pci", "vfio-pci", function.driver())
    ours = (function.path / "vfio_reset").exists()
    test.eq("that is ours in its place only", driver.modset == "in-place", ours)
    (DRIVERS / "vfio-pci/remove_id").write_text(ids)
    function.write("driver/unbind", function)
    Path("/sys/bus/pci/drivers_probe").write_text(function.address)
    test.eq("its usual driver is back", "nvme", function.driver())


TESTS = (selection_nvlib, selection_names, selection_kata)
