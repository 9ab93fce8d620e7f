#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs virtme-ng for tools/testing/vm, inside the Debian root, with the results directory at /results.

virtme-ng owns the machine: it shares the root with the guest, boots the kernel and starts the guest's
userspace. Owns what is particular to these tests: the devices of a topology as QEMU's arguments; the
time limit; the scan of the kernel's log. guest-init is its counterpart in the guest.
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
import traceback
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = Path("/results")
GUEST_INIT = HERE.resolve() / "guest-init"

# virtme-ng takes the first virtiofsd of PATH, and this one comes first. What the guest reads does not
# change while it runs, and only the guest writes to the results: it may keep what it has seen.
# (Asking each time makes a boot several times slower.)
VIRTIOFSD_DIR = Path("/tmp/virtiofsd")
VIRTIOFSD = """#!/bin/sh
exec /usr/libexec/virtiofsd --cache always "$@"
"""

# virtme-ng's devices lie below this device number of the root bus; those of the topologies from it on.
FIRST_TOPOLOGY_SLOT = 0x08

OK, COMMAND_FAILED, SPLAT, NO_RESULT = range(4)

# What the kernel prints when something is wrong with it. An rcu stall counts as well: TCG is slow,
# but not 21 seconds slow. If virtiofsd does not start, virtme-ng has the kernel look for a root that it
# cannot mount; that panic tells nothing about the kernel.
SPLATS = re.compile(
    r"\bBUG:|\bBUG \S+ \(|kernel BUG at|WARNING:|Oops|KASAN|KCSAN(?!_STRICT)|UBSAN"
    r"|lockdep(?! checking is enabled)|possible [a-z ]*deadlock|possible recursive locking|suspicious RCU usage"
    r"|trying to register non-static key|turning off the locking correctness validator|DEBUG_LOCKS_WARN_ON"
    # That kmemleak scans the whole of an object costs nothing: fault injection fails kmemleak's allocations too.
    r"|kmemleak: (?:\d+ new suspected|Cannot(?! allocate a scan area)|Unable|.*disabled|.*pool empty)"
    r"|ODEBUG: (?!selftest passed|\d+ of \d+ )"
    r"|INFO: task .* blocked|rcu.*(?:stall|starved)|general protection|refcount_t|scheduling while atomic"
    r"|sleeping function called|soft lockup|hard LOCKUP|rust_kernel: panicked|list_(?:add|del) corruption"
    r"|[Kk]ernel panic(?! - not syncing: VFS: Unable to mount root)"
)

KERNEL_ARGUMENTS = [
    # lib/modules is the module set's: virtme-ng's init shall not hide it.
    "virtme_root_mods=1",
    "loglevel=4", "log_buf_len=16M", "printk.time=1",
    "intel_iommu=on",
    # A task that hangs shall be seen within any run's time limit.
    "sysctl.kernel.hung_task_timeout_secs=60",
    # TCG's TSC is the host's one clock; the watchdog's cross-check of the CPUs only times out. So does
    # the look whether the timer ticks, if the host has other things to do just then.
    "tsc=reliable", "no_timer_check",
    # Costs of real hardware's defects, which an emulated processor does not have.
    "mitigations=off",
]  # fmt: skip


class TopologyError(Exception):
    """A topology that cannot be made, in one sentence."""


def load_topologies():
    with open(HERE / "topologies.toml", "rb") as file:
        return tomllib.load(file)


def grid_devices(grid):
    """The devices of a grid: ports, eight of which make one device, each with functions behind it."""
    first = int(grid["at"], 16)
    for port in range(grid["ports"]):
        port_id = f"{grid['id']}.port.{port}"
        yield {"id": port_id, "at": f"{first + port // 8:02x}.{port % 8}", "device": grid["port"]}
        for function in range(grid["functions"]):
            device_id = f"{grid['id']}.{port}.{function}"
            yield {"id": device_id, "behind": port_id, "at": f"00.{function}", "device": grid["device"]}


class Topology:
    """One table of topologies.toml: QEMU's arguments, and where each device will be found."""

    def __init__(self, name, table):
        self.memory = table.get("memory", "2G")
        self.globals = table.get("globals", [])
        self.cpu = table.get("cpu", "Nehalem")
        self.kernel_arguments = table.get("kernel-arguments", [])
        self.objects = table.get("objects", [])
        self.arguments = []
        # Device id -> device.function of every hop from the root bus, as in "08.0/00.1".
        self.paths = {}
        devices = table.get("device", []) + [device for grid in table.get("grid", []) for device in grid_devices(grid)]
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
            # Every port needs a slot number of its own; its device number is one, if it is function 0.
            number = int(slot, 16) + 32 * int(function)
            argument += f",chassis={number},slot={number}"
        self.arguments += ["-device", argument]


def virtme_command(topology, cpus, memory):
    [kernel] = Path("/usr/lib/modules").glob("*/vmlinuz")
    command = [
        # All kernels have virtiofs built in: without modules for virtme-ng, they need no initramfs.
        "virtme-run", "--kimg", kernel.parent.name, "--mods", "none", "--disable-kvm",
        # The root is read-only where it is shared from (tools/enter), and the results are not.
        "--rw", "--cwd", str(HERE.parent.parent.resolve()), "--memory", memory or topology.memory, "--cpus", str(cpus),
        # --script-sh would take one more device, the first one of the topologies.
        "--script-exec", str(GUEST_INIT), "--show-boot-console",
    ]  # fmt: skip
    for argument in KERNEL_ARGUMENTS + topology.kernel_arguments:
        command += ["--kopt", argument]
    command += [
        "--qemu-opts",
        # Newer processor models have more for TCG to emulate: a boot with "max" takes twice as long.
        "-accel", "tcg,thread=multi,tb-size=512", "-cpu", topology.cpu,
        # vfio needs an IOMMU that remaps interrupts. (The machine is q35 without KVM.)
        "-machine", "kernel-irqchip=split",
        "-device", "intel-iommu,intremap=on,caching-mode=on",
    ]  # fmt: skip
    for setting in topology.globals:
        command += ["-global", setting]
    for setting in topology.objects:
        command += ["-object", setting]
    return command + topology.arguments


def write_guest_files(topology, command):
    """What guest-init reads; and nothing of an earlier run is left that could be taken for this one's."""
    results = "exit-status output.log dmesg.log console.log machine.log topology.json unmapped kmemleak.log"
    for name in results.split():
        (RESULTS / name).unlink(missing_ok=True)
    (RESULTS / "command").write_text("exec " + shlex.join(command) + "\n")
    (RESULTS / "topology-paths").write_text("".join(f"{role} {path}\n" for role, path in topology.paths.items()))


class Machine:
    """virtme-run and what it starts, a process group of their own; none outlives it."""

    def __init__(self, command):
        VIRTIOFSD_DIR.mkdir()
        virtiofsd = VIRTIOFSD_DIR / "virtiofsd"
        virtiofsd.write_text(VIRTIOFSD)
        virtiofsd.chmod(0o755)
        path = f"{VIRTIOFSD_DIR}:{os.environ['PATH']}"
        # virtme-ng connects the guest's serial console to stderr. Appending, so that what QEMU itself
        # has to say is not written over it.
        with open(RESULTS / "machine.log", "ab") as log, open(RESULTS / "console.log", "ab") as console:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=console,
                env={**os.environ, "PATH": path}, start_new_session=True,
            )  # fmt: skip

    def runs(self):
        return self.process.poll() is None

    def stop(self):
        # virtme-run leaves QEMU behind if it is stopped alone.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()


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


def run_machine(topology, cpus, memory, time_limit):
    """Returns a sentence if the machine had to be stopped, and None if it ended by itself."""
    deadline = time.monotonic() + time_limit
    machine = Machine(virtme_command(topology, cpus, memory))
    output = Output()
    try:
        while machine.runs():
            output.forward()
            if time.monotonic() > deadline:
                return f"the time limit of {time_limit} s was reached"
            time.sleep(0.05)
        return None
    finally:
        machine.stop()
        output.forward()


def splats():
    """The lines of the kernel's log that say that something is wrong with it, and the leaks it found."""
    lines = []
    for name in ("dmesg.log", "console.log"):
        path = RESULTS / name
        if path.exists():
            lines += [line for line in path.read_text(errors="replace").splitlines() if SPLATS.search(line)]
    leaks = RESULTS / "kmemleak.log"
    if leaks.exists():
        # Indented lines tell more about the leak in the line before them.
        lines += [f"kmemleak: {line}" for line in leaks.read_text().splitlines() if not line.startswith(" ")]
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
        for grid in table.get("grid", []):
            print(f"    {grid['id']:12} {grid['ports']} ports with {grid['functions']} functions each: {grid['device']}")


def main():
    parser = argparse.ArgumentParser(prog="vm")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--topology")
    parser.add_argument("--time-limit", type=float, default=300)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory")
    parser.add_argument("command", nargs="*")
    try:
        args = parser.parse_args()
    except SystemExit as end:
        # argparse's own status for a wrong argument means something else here.
        return NO_RESULT if end.code else OK

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
        return verdict(run_machine(topology, args.cpus, args.memory, args.time_limit))
    except KeyboardInterrupt:
        return NO_RESULT


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        # So does Python's for what nobody caught.
        traceback.print_exc()
        sys.exit(NO_RESULT)
