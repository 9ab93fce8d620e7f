#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs QEMU for tools/testing/vm, inside the Debian root, with the results directory at /results.

Owns the machine: QEMU's command line, made from a topology; the time limit; the scan of the kernel's
log. guest-init is its counterpart in the guest.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = Path("/results")
SOCKET = "/tmp/virtiofsd.sock"

VIRTIOFSD = [
    "/usr/libexec/virtiofsd", "--socket-path", SOCKET, "--shared-dir", "/", "--sandbox", "none",
    # What the guest reads does not change while it runs, and only the guest writes to the results:
    # it may keep what it has seen. (Asking each time makes a boot 3 s slower.)
    "--cache", "always",
]  # fmt: skip

# QEMU's devices for the guest itself lie below this device number of the root bus; those of the
# topologies from it on.
FIRST_TOPOLOGY_SLOT = 0x08

OK, COMMAND_FAILED, SPLAT, NO_RESULT = range(4)

# What the kernel prints when something is wrong with it. An rcu stall counts as well: TCG is slow,
# but not 21 seconds slow.
SPLATS = re.compile(
    r"BUG:|WARNING:|Oops|KASAN|KCSAN|UBSAN|lockdep|possible [a-z ]*deadlock|possible recursive locking"
    r"|INFO: task .* blocked|rcu.*(?:stall|starved)|general protection|refcount_t|scheduling while atomic"
    r"|sleeping function called|soft lockup|hard LOCKUP|[Kk]ernel panic|rust_kernel: panicked|list_(?:add|del) corruption"
)

KERNEL_ARGUMENTS = [
    # virtiofs is built into Debian's kernel: it needs no initramfs to find its root.
    "rootfstype=virtiofs", "root=ROOTFS", "rw", "init=/src/tools/testing/guest-init",
    "console=ttyS0", "quiet", "panic=-1", "log_buf_len=16M", "printk.time=1",
    "intel_iommu=on",
    # TCG's TSC is the host's one clock; the watchdog's cross-check of the CPUs only times out.
    "tsc=reliable",
    # Costs of real hardware's defects, which an emulated processor does not have.
    "mitigations=off",
]  # fmt: skip


class TopologyError(Exception):
    """A topology that cannot be made, in one sentence."""


def load_topologies():
    with open(HERE / "topologies.toml", "rb") as file:
        return tomllib.load(file)


class Topology:
    """One table of topologies.toml: QEMU's arguments, and where each device will be found."""

    def __init__(self, name, table):
        self.memory = table.get("memory", "2G")
        self.globals = table.get("globals", [])
        self.arguments = []
        # Device id -> device.function of every hop from the root bus, as in "08.0/00.1".
        self.paths = {}
        self.roles = []
        devices = table.get("device", [])
        occupied = [(device.get("behind"), device["at"]) for device in devices]
        for device in devices:
            self._add(name, device, occupied)

    def _add(self, name, device, occupied):
        device_id, behind, at = device["id"], device.get("behind"), device["at"]
        if device_id in self.paths:
            raise TopologyError(f"topology {name} has two devices with the id {device_id}")
        slot, function = at.split(".")
        if occupied.count((behind, at)) != 1:
            raise TopologyError(f"topology {name} has more than one device at {at} behind {behind}")
        if behind is None:
            if int(slot, 16) < FIRST_TOPOLOGY_SLOT:
                raise TopologyError(
                    f"topology {name} puts {device_id} at {at} of the root bus, below the first free one"
                )
            bus, path = "pcie.0", at
        elif behind in self.paths:
            bus, path = f"dev.{behind}", f"{self.paths[behind]}/{at}"
        else:
            raise TopologyError(f"topology {name} has {device_id} behind {behind}, which no line before it describes")
        self.paths[device_id] = path
        # The prefix keeps the name out of the way of what QEMU names itself in a bus or device.
        argument = f"{device['device']},id=dev.{device_id},bus={bus},addr={at}"
        if function == "0" and any(b == behind and a.split(".")[0] == slot and a != at for b, a in occupied):
            argument += ",multifunction=on"
        if device["device"].startswith("pcie-root-port"):
            # Every port needs a slot number of its own; its device number is one.
            argument += f",chassis={int(slot, 16)},slot={int(slot, 16)}"
        self.arguments += ["-device", argument]


def qemu_command(topology, cpus):
    command = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        # Newer processor models have more for TCG to emulate: a boot with "max" takes twice as long.
        "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem", "-smp", str(cpus), "-m", topology.memory,
        # vfio needs an IOMMU that remaps interrupts.
        "-machine", "q35,kernel-irqchip=split",
        "-device", "intel-iommu,intremap=on,caching-mode=on",
        # The guest's root, shared with virtiofsd, which needs the guest's memory.
        "-object", f"memory-backend-memfd,id=memory,size={topology.memory},share=on",
        "-numa", "node,memdev=memory",
        "-chardev", f"socket,id=rootfs,path={SOCKET}",
        "-device", "vhost-user-fs-pci,chardev=rootfs,tag=ROOTFS,bus=pcie.0,addr=02.0",
        "-chardev", f"file,id=console,path={RESULTS}/console.log", "-serial", "chardev:console",
    ]  # fmt: skip
    for setting in topology.globals:
        command += ["-global", setting]
    command += topology.arguments
    [kernel] = Path("/usr/lib/modules").glob("*/vmlinuz")
    command += ["-kernel", str(kernel), "-append", " ".join(KERNEL_ARGUMENTS)]
    return command


def write_guest_files(topology, command):
    """What guest-init reads; and nothing of an earlier run is left that could be taken for this one's."""
    for name in ("exit-status", "output.log", "dmesg.log", "console.log", "topology.json", "unmapped"):
        (RESULTS / name).unlink(missing_ok=True)
    (RESULTS / "command").write_text("exec " + shlex.join(command) + "\n")
    (RESULTS / "topology-paths").write_text("".join(f"{role} {path}\n" for role, path in topology.paths.items()))


class Processes:
    """The processes of this machine; none outlives it."""

    def __init__(self):
        self.all = []

    def start(self, command, log):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.all.append(process)
        return process

    def stop(self):
        for process in reversed(self.all):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


class Output:
    """Passes on what the guest's command prints while it runs."""

    def __init__(self):
        self.file = None

    def forward(self):
        if self.file is None:
            try:
                self.file = open(RESULTS / "output.log", "rb")
            except FileNotFoundError:
                return
        sys.stdout.buffer.write(self.file.read())
        sys.stdout.buffer.flush()


def run_machine(topology, cpus, time_limit):
    """Returns a sentence if the machine had to be stopped, and None if it ended by itself."""
    deadline = time.monotonic() + time_limit
    processes = Processes()
    output = Output()
    try:
        with open(RESULTS / "machine.log", "wb") as log:
            virtiofsd = processes.start(VIRTIOFSD, log)
            while not os.path.exists(SOCKET):
                if virtiofsd.poll() is not None:
                    return "virtiofsd did not start, machine.log says why"
                time.sleep(0.01)
            qemu = processes.start(qemu_command(topology, cpus), log)
            while qemu.poll() is None:
                output.forward()
                if time.monotonic() > deadline:
                    return f"the time limit of {time_limit} s was reached"
                time.sleep(0.05)
            return None if qemu.returncode == 0 else f"QEMU ended with status {qemu.returncode}, machine.log says why"
    finally:
        processes.stop()
        output.forward()


def splats():
    """The lines of the kernel's log that say that something is wrong with it."""
    lines = []
    for name in ("dmesg.log", "console.log"):
        path = RESULTS / name
        if path.exists():
            lines += [line for line in path.read_text(errors="replace").splitlines() if SPLATS.search(line)]
    return list(dict.fromkeys(lines))


def verdict(stopped):
    """The exit status, and on stderr the reason if it is not 0."""

    def say(sentence):
        print(f"vm: {sentence}", file=sys.stderr)

    found = splats()
    for line in found[:10]:
        say(f"splat: {line}")
    if stopped:
        say(stopped)
    status_file = RESULTS / "exit-status"
    status = status_file.read_text().strip() if status_file.exists() else None
    if found:
        return SPLAT
    if stopped:
        return NO_RESULT
    if status is None:
        unmapped = RESULTS / "unmapped"
        if unmapped.exists():
            say(f"the guest has no PCI device for {unmapped.read_text().strip()}")
        else:
            say("the guest ended without saying how the command ended, see console.log")
        return NO_RESULT
    if status != "0":
        say(f"the command ended with status {status}")
        return COMMAND_FAILED
    return OK


def list_topologies(topologies):
    for name, table in topologies.items():
        print(f"{name}: {table['description'].strip()}")
        for device in table.get("device", []):
            behind = device.get("behind", "the root bus")
            print(f"    {device['id']:12} {device['at']} of {behind}: {device['device']}")


def main():
    parser = argparse.ArgumentParser(prog="vm")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--topology")
    parser.add_argument("--time-limit", type=float, default=300)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()

    topologies = load_topologies()
    if args.list:
        list_topologies(topologies)
        return OK
    if args.topology not in topologies:
        print(f"vm: looked for topology {args.topology} among {', '.join(topologies)}", file=sys.stderr)
        return NO_RESULT
    try:
        topology = Topology(args.topology, topologies[args.topology])
    except TopologyError as error:
        print(f"vm: {error}", file=sys.stderr)
        return NO_RESULT
    # Ends like any other failure, so that the processes are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(NO_RESULT))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(NO_RESULT))
    write_guest_files(topology, args.command)
    try:
        return verdict(run_machine(topology, args.cpus, args.time_limit))
    except KeyboardInterrupt:
        return NO_RESULT


if __name__ == "__main__":
    sys.exit(main())
