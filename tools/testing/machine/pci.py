# SPDX-License-Identifier: GPL-2.0
"""PCI functions as sysfs shows them, the driver under test, and the kernel's resets."""

import os
from collections import Counter
from pathlib import Path

from .report import wait_for

DEVICES = Path("/sys/bus/pci/devices")
TRACING = Path("/sys/kernel/tracing")
# Function resets, those of a bus or slot, and calls of the last one, which may only ask for a slot.
RESETS = ("pcie_flr", "pcibios_reset_secondary_bus", "pciehp_reset_slot")


class Driver:
    """The driver of a module set: `c` and `in-place` are called vfio-pci, `beside` is not."""

    def __init__(self, modset):
        self.modset = modset
        self.is_ours, self.is_default = modset != "c", modset != "beside"
        self.name = "vfio-pci" if self.is_default else "vfio_pci_rs"
        self.module = self.name.replace("-", "_")


class Function:
    """A PCI function, by its id in the topology or by its address."""

    def __init__(self, name):
        self.address = name if name[0].isdigit() else address(name)
        self.path = DEVICES / self.address

    def __str__(self):
        return self.address

    def read(self, name):
        return (self.path / name).read_text().strip()

    def write(self, name, text):
        (self.path / name).write_text(str(text))

    def command(self, bits):
        """Sets the low byte of PCI_COMMAND."""
        with open(self.path / "config", "r+b", buffering=0) as file:
            file.seek(4)
            file.write(bytes([bits]))

    def driver(self):
        link = self.path / "driver"
        return os.path.basename(os.readlink(link)) if link.exists() else "none"

    def power(self):
        return self.read("power_state")

    def state(self):
        """Returns the driver's opinion of the function, if it is ours and has it."""
        file = self.path / "vfio_reset/state"
        return file.read_text().strip() if file.exists() else "none"

    def is_master(self):
        """Returns whether the function may make DMA: the bit of PCI_COMMAND."""
        return bool((self.path / "config").read_bytes()[4] & 4)

    def group(self):
        return os.path.basename(os.readlink(self.path / "iommu_group"))

    def usable(self):
        """Returns the name in libvirt's list of devices."""
        return "pci_" + self.address.translate(str.maketrans(":.", "__"))

    def vfs(self, count):
        self.write("sriov_numvfs", 0)
        self.write("sriov_numvfs", count)
        links = (self.path / f"virtfn{number}" for number in range(count))
        return [Function(os.path.basename(os.readlink(link))) for link in links]


def address(name):
    """Returns the address of the topology's function `name`."""
    lines = (Path(os.environ["RESULTS"]) / "topology-paths").read_text().splitlines()
    path = Path("/sys/devices/pci0000:00")
    for hop in dict(line.split() for line in lines)[name].split("/"):
        [path] = path.glob(f"0000:??:{hop}")
    return path.name


def used(test, functions, driver):
    """Checks that `functions` are in use, through the driver."""
    for function in functions:
        test.eq(f"{function} is bound to the driver", driver.name, function.driver())
        test.eq(f"{function} is awake", "D0", function.power())
        if driver.is_ours:
            test.eq(f"the driver knows that {function} is in use", "in-use", function.state())


def idle(test, functions, driver):
    """Checks that the driver has `functions`, and has reset them and put them to sleep."""
    for function in functions:
        test.eq(f"{function} is bound to the driver", driver.name, function.driver())
        if driver.is_ours:
            # It is reset in the background.
            wait_for(f"clean {function}", lambda: function.state() == "clean")
        wait_for(f"D3hot of {function}", lambda: function.power() == "D3hot")
        test.eq(f"{function} sleeps", "D3hot", function.power())


class Resets:
    """Counts the resets while it is entered, by the function tracer: `counts`."""

    def __enter__(self):
        (TRACING / "current_tracer").write_text("nop")
        (TRACING / "set_ftrace_filter").write_text(" ".join(RESETS))
        (TRACING / "current_tracer").write_text("function")
        (TRACING / "trace").write_text("")
        return self

    def __exit__(self, *_):
        lines = (TRACING / "trace").read_text().splitlines()
        (TRACING / "current_tracer").write_text("nop")
        calls = (line.partition(": ")[2].split() for line in lines if not line.startswith("#"))
        self.counts = Counter(call[0].removeprefix("__") for call in calls if call)

    def __getattr__(self, name):
        # The kernel's names are long.
        return self.counts[RESETS[("flr", "bus", "slot").index(name)]]
