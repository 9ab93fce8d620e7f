# SPDX-License-Identifier: GPL-2.0
"""QEMU itself: functions by hot-plug, VFs, and by an iommufd and a file passed in."""

import json
import os
import subprocess

from .pci import Function, Resets, idle, used
from .report import run
from .selection import bind, unbind

SLOTS = [f"pcie-root-port,id=slot{n},chassis={n},slot={n}" for n in (1, 2)]


class Qemu:
    """QEMU with a firmware and these devices, until the end of the block. Talks QMP."""

    def __init__(self, *devices, objects=(), files=()):
        self.files = files
        line = ["qemu-system-x86_64", "-machine", "q35", "-m", "64M", "-nodefaults", "-display"]
        line += ["none", "-qmp", "stdio"]
        line += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", *objects]
        self.line = line + [word for device in (*SLOTS, *devices) for word in ("-device", device)]

    def __enter__(self):
        print(f"    $ {' '.join(self.line)}", flush=True)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(self.line, text=True, pass_fds=self.files, **pipes)
        self.answer("QMP")
        self.execute("qmp_capabilities")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def answer(self, key, value=None):
        """Returns QEMU's next message with this key, which has this value."""
        for line in self.process.stdout:
            message = json.loads(line)
            if "error" in message:
                raise RuntimeError(message["error"]["desc"])
            if key in message and value in (None, message[key]):
                return message[key]
        raise RuntimeError(f"QEMU ended with status {self.process.wait()}")

    def execute(self, command, **arguments):
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        return self.answer("return")


def qemu_hotplug(test, driver):
    """device_add and device_del of a function in a running QEMU, twice."""
    function = Function("pair.0")
    run("modprobe", driver.name)
    bind(function, driver.name)
    with Qemu() as qemu, Resets() as resets:
        for _ in range(2):
            qemu.execute("device_add", driver="vfio-pci", host=str(function), id="f", bus="slot1")
            used(test, [function], driver)
            # The slot is off, as no guest has turned it on: QEMU does not wait for the guest.
            qemu.execute("device_del", id="f")
            idle(test, [function], driver)
    test.check("it was reset for each use", resets.flr >= 2, resets.counts)
    test.seen("FLRs of 2 uses", resets.flr)
    unbind(function)
    test.eq("its usual driver is back", "igb", function.driver())


def qemu_vfs(test, driver):
    """sriov_numvfs of a PF of igb, twice, the binding of its VFs, and a QEMU with two of them."""
    pf = Function("igb.pf")
    for count in (7, 2):
        vfs = pf.vfs(count)
        for vf in vfs:
            bind(vf, driver.name)
        test.eq("all are bound", [driver.name] * count, [vf.driver() for vf in vfs])
        with Resets() as resets, Qemu(*(f"vfio-pci,host={vf}" for vf in vfs[:2])):
            if driver.is_ours:
                test.eq("used", ["in-use"] * 2, [vf.state() for vf in vfs[:2]])
        test.check("each VF was reset", resets.flr >= 2, resets.counts)
        pf.write("sriov_numvfs", 0)
        test.check("the VFs are gone", not any(vf.path.exists() for vf in vfs))


def qemu_iommufd(test, driver):
    """-device vfio-pci,fd= and -object iommufd,fd=, both opened by another program."""
    function = Function("flr.0")
    run("modprobe", driver.name)
    siblings = [Function(f"flr.{number}") for number in range(4)]
    for sibling in siblings:
        bind(sibling, driver.name)
    [name] = (path.name for path in (function.path / "vfio-dev").iterdir())
    run("modprobe", "iommufd", ok=None)
    files = [os.open(path, os.O_RDWR) for path in ("/dev/iommu", f"/dev/vfio/devices/{name}")]
    objects = ["-object", f"iommufd,id=iommufd,fd={files[0]}"]
    # As libvirt does: without an id, QEMU 11.1 crashes, as it remembers the file under it.
    device = f"vfio-pci,id=f,host={function},iommufd=iommufd,fd={files[1]}"
    with Resets() as resets:
        with Qemu(device, objects=objects, files=files):
            used(test, [function], driver)
        for file in files:
            os.close(file)
        idle(test, [function], driver)
    test.check("it was reset", resets.flr > 0, resets.counts)
    test.seen("FLRs", resets.flr)
    for sibling in siblings:
        unbind(sibling)


TESTS = (qemu_hotplug, qemu_vfs)
