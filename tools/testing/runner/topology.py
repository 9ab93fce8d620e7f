# SPDX-License-Identifier: GPL-2.0
"""The PCI devices of a guest, as ../topologies.toml describes them: QEMU's arguments and places.

QEMU refuses two devices with one id or at one place, and one behind a bridge that does not exist.
"""

import re
import tomllib

from . import ARCH, TESTING, Failure

RANGE = re.compile(r"\{(\w+)-(\w+)\}")


def expand(texts):
    """Yields `texts` with each value of their ranges: first ranges go together, and so on."""
    matches = [RANGE.search(text) for text in texts]
    if not any(matches):
        yield texts
        return
    for values in zip(*(_values(*match.groups()) for match in matches), strict=True):
        parts = zip(texts, matches, values)
        yield from expand([text[: m.start()] + value + text[m.end() :] for text, m, value in parts])


def _values(first, last):
    if first.isdigit():
        return [str(number) for number in range(int(first), int(last) + 1)]
    return [chr(code) for code in range(ord(first), ord(last) + 1)]


class Topology:
    """One table of topologies.toml: QEMU's arguments, and where the guest finds each device."""

    def __init__(self, table, kinds):
        self.memory = table.get("memory", "2G")
        self.cpu = "cortex-a72" if ARCH else table.get("cpu", "Nehalem")
        self.accelerator = table.get("accelerator", "tcg,thread=multi,tb-size=512")
        self.kernel_arguments = table.get("kernel-arguments", [])
        # On q35, ACPI owns hotplug by default. Then no slot can be reset, and the link of a port
        # never becomes active again after a bus reset.
        acpi = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        self.arguments = ([] if ARCH else acpi) + table.get("arguments", [])
        # Device id -> device.function of every hop from the root bus, as in "08.0/00.1".
        self.paths = {}
        devices = []
        for line in table["devices"]:
            *texts, device = line.split(maxsplit=2)
            devices += [(*expanded, kinds.get(device, device)) for expanded in expand(texts)]
        places = [place for _, place, _ in devices]
        for device in devices:
            self._add(*device, places)

    def _add(self, device_id, place, device, places):
        behind, _, at = place.rpartition("/")
        slot, _, function = place.rpartition(".")
        # The prefix keeps the name out of the way of QEMU's own names of buses and devices.
        bus = f"dev.{behind}" if behind else "pcie.0"
        self.paths[device_id] = f"{self.paths[behind]}/{at}" if behind else at
        argument = f"{device},id=dev.{device_id},bus={bus},addr={at}"
        if function == "0" and sum(other.rpartition(".")[0] == slot for other in places) > 1:
            argument += ",multifunction=on"
        if device.startswith("pcie-root-port"):
            # Every port needs a slot number of its own: its device number, if it is function 0.
            number = int(at.split(".")[0], 16) + 32 * int(function)
            argument += f",chassis={number},slot={number}"
        self.arguments += ["-device", argument]

    def description(self):
        """Returns all that distinguishes this machine from another, as text."""
        machine = self.memory, self.cpu, self.accelerator, self.kernel_arguments, self.arguments
        return repr(machine)


def tables():
    """Returns the tables of all topologies by name, and the kinds of devices."""
    with open(TESTING / "topologies.toml", "rb") as file:
        tables = tomllib.load(file)
    return tables, tables.pop("kinds")


def load(name):
    found, kinds = tables()
    if name not in found:
        raise Failure(f"looked for the topology '{name}' among {', '.join(found)}")
    return Topology(found[name], kinds)
