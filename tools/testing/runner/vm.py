# SPDX-License-Identifier: GPL-2.0
"""Runs a command in a virtual machine that has the PCI devices of a topology.

virtme-ng owns the machine: it shares the root with the guest, boots the kernel and starts the
guest's user space. This module owns the devices (QEMU's arguments), the time limit, and the scan of
the kernel's log. guest-init is its counterpart in the guest.
"""

import os
import re
import shlex
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import REPO, TESTING, Failure

# virtme-ng's devices lie below this device number of the root bus; those of the topologies from it
# on.
FIRST_TOPOLOGY_SLOT = 0x08

# virtme-ng takes the first virtiofsd of PATH, and this one comes first. The guest reads nothing
# that changes while it runs, so it may cache everything: without the cache a boot takes several
# times as long.
VIRTIOFSD = b'#!/bin/sh\nexec /usr/libexec/virtiofsd --cache always "$@"\n'
PATH = "/tmp/virtiofsd:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What the kernel prints when something is wrong with it. An rcu stall counts as well: TCG is slow,
# but not 21 seconds slow. If virtiofsd does not start, virtme-ng has the kernel look for a root
# that it cannot mount; that panic tells nothing about the kernel.
SPLATS = re.compile(
    r"\bBUG:|\bBUG \S+ \(|kernel BUG at|WARNING:|Oops|KASAN|KCSAN(?!_STRICT)|UBSAN"
    r"|lockdep(?! checking is enabled)|possible [a-z ]*deadlock|possible recursive locking"
    r"|suspicious RCU usage|trying to register non-static key"
    r"|turning off the locking correctness validator|DEBUG_LOCKS_WARN_ON"
    # That kmemleak scans the whole of an object costs nothing: fault injection fails kmemleak's
    # allocations too.
    r"|kmemleak: (?:\d+ new suspected|Cannot(?! allocate a scan area)|Unable)"
    r"|kmemleak: (?:.*disabled|.*pool empty)"
    r"|ODEBUG: (?!selftest passed|\d+ of \d+ )"
    r"|INFO: task .* blocked|rcu.*(?:stall|starved)|general protection|refcount_t"
    r"|scheduling while atomic|sleeping function called|soft lockup|hard LOCKUP"
    r"|rust_kernel: panicked|list_(?:add|del) corruption"
    r"|[Kk]ernel panic(?! - not syncing: VFS: Unable to mount root)"
)

KERNEL_ARGUMENTS = [
    # lib/modules is the module set's: virtme-ng's init must not hide it.
    "virtme_root_mods=1",
    "loglevel=4", "log_buf_len=16M", "printk.time=1",
    "intel_iommu=on",
    # A hung task must show within any run's time limit.
    "sysctl.kernel.hung_task_timeout_secs=60",
    # TCG's TSC is the host's one clock; the watchdog's cross-check of the CPUs only times out. So
    # does the test of the timer if the host is busy.
    "tsc=reliable", "no_timer_check",
    # An emulated processor has no such defects.
    "mitigations=off",
]  # fmt: skip


def expand(line):
    """Yields the (id, place, device) that a line describes; see topologies.toml."""
    words = line.split(maxsplit=2)
    if len(words) != 3:
        raise Failure(f"looked for an id, a place and a device in the topology's line '{line}'")
    brace = re.compile(r"\{(\w)-(\w)\}|\{(\d+)-(\d+)\}")

    def values(match):
        first, last = (match[1], match[2]) if match[1] else (match[3], match[4])
        if first.isdigit():
            return [str(number) for number in range(int(first), int(last) + 1)]
        return [chr(code) for code in range(ord(first), ord(last) + 1)]

    def each(texts):
        # The first range of the id goes with the first one of the place, and so on.
        matches = [brace.search(text) for text in texts]
        if not any(matches):
            yield texts
            return
        if not all(matches) or len(lengths := {len(values(match)) for match in matches}) != 1:
            raise Failure(f"the ranges of the topology's line '{line}' are not of one length")
        for index in range(lengths.pop()):
            yield from each(
                [
                    text[: m.start()] + values(m)[index] + text[m.end() :]
                    for text, m in zip(texts, matches)
                ]
            )

    for device_id, place in each(words[:2]):
        yield device_id, place, words[2]


class Topology:
    """One table of topologies.toml: QEMU's arguments, and where the guest finds each device."""

    def __init__(self, name, table, kinds):
        self.name = name
        self.memory = table.get("memory", "2G")
        self.cpu = table.get("cpu", "Nehalem")
        self.kernel_arguments = table.get("kernel-arguments", [])
        # On q35, ACPI owns hotplug unless told otherwise. Then no slot can be reset, and the link
        # of a port never becomes active again after a bus reset.
        self.arguments = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        for setting in table.get("objects", []):
            self.arguments += ["-object", setting]
        # Device id -> device.function of every hop from the root bus, as in "08.0/00.1".
        self.paths = {}
        devices = []
        for device_id, place, device in (
            entry for line in table["devices"] for entry in expand(line)
        ):
            behind, _, at = place.rpartition("/")
            devices.append((device_id, behind, at, kinds.get(device, device)))
        occupied = [(behind, at) for _, behind, at, _ in devices]
        for device in devices:
            self._add(*device, occupied)

    def _add(self, device_id, behind, at, device, occupied):
        slot, function = at.split(".")
        if device_id in self.paths:
            raise Failure(f"topology {self.name} has two devices with the id {device_id}")
        if occupied.count((behind, at)) != 1:
            raise Failure(
                f"topology {self.name} has more than one device at {at} behind '{behind}'"
            )
        if not behind and int(slot, 16) < FIRST_TOPOLOGY_SLOT:
            raise Failure(
                f"topology {self.name} puts {device_id} at {at} of the root bus, which is not free"
            )
        if behind and behind not in self.paths:
            raise Failure(
                f"topology {self.name} has {device_id} behind {behind}, which does not come before"
            )
        # The prefix keeps the name out of the way of what QEMU names itself in a bus or device.
        bus = f"dev.{behind}" if behind else "pcie.0"
        self.paths[device_id] = f"{self.paths[behind]}/{at}" if behind else at
        argument = f"{device},id=dev.{device_id},bus={bus},addr={at}"
        if function == "0" and any(
            b == behind and a.split(".")[0] == slot and a != at for b, a in occupied
        ):
            argument += ",multifunction=on"
        if device.startswith("pcie-root-port"):
            # Every port needs a slot number of its own; its device number is one, if it is function
            # 0.
            number = int(slot, 16) + 32 * int(function)
            argument += f",chassis={number},slot={number}"
        self.arguments += ["-device", argument]

    def description(self):
        """Returns all that distinguishes this machine from another, as text."""
        return repr((self.memory, self.cpu, self.kernel_arguments, self.arguments))


def topologies(path=TESTING / "topologies.toml"):
    """Returns the tables of all topologies by name, and the kinds of devices."""
    with open(path, "rb") as file:
        tables = tomllib.load(file)
    return tables, tables.pop("kinds")


def topology(name):
    """Returns the Topology `name`."""
    tables, kinds = topologies()
    if name not in tables:
        raise Failure(f"looked for the topology '{name}' among {', '.join(tables)}")
    return Topology(name, tables[name], kinds)


def virtme(machine, release, cpus, memory):
    """Returns the command that runs the machine, in the sandbox."""
    command = [
        # All kernels have virtiofs built in: without modules for virtme-ng, they need no initramfs.
        "virtme-run", "--kimg", release, "--mods", "none", "--disable-kvm",
        # The sandbox is read-only but for the results.
        "--rw", "--cwd", str(REPO), "--memory", memory or machine.memory, "--cpus", str(cpus),
        # --script-sh would take one more device, the first one of the topologies.
        "--script-exec", str(TESTING / "guest-init"), "--show-boot-console",
    ]  # fmt: skip
    for argument in KERNEL_ARGUMENTS + machine.kernel_arguments:
        command += ["--kopt", argument]
    return command + [
        "--qemu-opts",
        # Newer processor models have more for TCG to emulate: a boot with "max" takes twice as
        # long.
        "-accel", "tcg,thread=multi,tb-size=512", "-cpu", machine.cpu,
        # vfio needs an IOMMU that remaps interrupts. (The machine is q35 without KVM.)
        "-machine", "kernel-irqchip=split",
        "-device", "intel-iommu,intremap=on,caching-mode=on", *machine.arguments,
    ]  # fmt: skip


def sandbox(modules, results, virtiofsd):
    """Returns the command that shows the guest's root to what follows, with `results` writable."""
    return [
        "bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc",
        "--perms", "1777", "--tmpfs", "/tmp",
        "--perms", "0755", "--file", str(virtiofsd), "/tmp/virtiofsd/virtiofsd",
        # The one kernel. The true udevadm would look at hundreds of devices.
        "--ro-bind", str(Path(modules).parent), "/usr/lib/modules",
        "--ro-bind", str(TESTING / "guest-udevadm"), "/usr/bin/udevadm",
        "--bind", str(results), "/results", "--setenv", "PATH", PATH,
        "--unshare-pid", "--die-with-parent", "--",
    ]  # fmt: skip


@dataclass
class Outcome:
    """How a guest ended. `status` is the command's; None if the guest did not get as far."""

    status: int | None = None
    splats: list = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0

    def complaints(self):
        """Returns a sentence for each thing that is wrong, the command's own status aside."""
        return [f"splat: {line}" for line in self.splats] + ([self.reason] if self.reason else [])


def write_guest_files(results, machine, command):
    """Writes what guest-init reads, into an empty directory."""
    (results / "command").write_text("exec " + shlex.join(command) + "\n")
    paths = "".join(f"{device_id} {path}\n" for device_id, path in machine.paths.items())
    (results / "topology-paths").write_text(paths)


def splats(results):
    """Returns the lines of the kernel's log that report a bug, and the leaks."""
    lines = []
    for name in "dmesg.log", "console.log":
        path = results / name
        if path.exists():
            lines += [
                line
                for line in path.read_text(errors="replace").splitlines()
                if SPLATS.search(line)
            ]
    leaks = results / "kmemleak.log"
    if leaks.exists():
        # Indented lines are about the leak in the line before them.
        lines += [
            f"kmemleak: {line}"
            for line in leaks.read_text().splitlines()
            if not line.startswith(" ")
        ]
    return list(dict.fromkeys(lines))


def outcome(results, stopped):
    """Returns the Outcome of a guest. `stopped` is why it was stopped, or empty."""
    end = Outcome(splats=splats(results), reason=stopped)
    status, unmapped = results / "exit-status", results / "unmapped"
    if status.exists():
        end.status = int(status.read_text())
    elif unmapped.exists():
        end.reason = f"the guest has no PCI device for {unmapped.read_text().strip()}"
    elif not stopped:
        end.reason = "the guest ended without an exit status of the command, see console.log"
    return end


def run(machine, modules, command, results, cpus=2, memory=None, time_limit=900, output=None):
    """Runs `command` in the guest, as root and in the repository.

    modules: a directory lib/modules/VERSION with the kernel (vmlinuz), see kernel.modules().
    results: an empty directory, which the guest sees at $RESULTS, or /results.
    output: a function that gets what the command prints, in bytes, as it comes.
    """
    write_guest_files(results, machine, command)
    start = time.monotonic()
    virtiofsd = os.memfd_create("virtiofsd")
    os.write(virtiofsd, VIRTIOFSD)
    os.lseek(virtiofsd, 0, os.SEEK_SET)
    stopped, printed = "", None
    line = [
        *sandbox(modules, results, virtiofsd),
        *virtme(machine, Path(modules).name, cpus, memory),
    ]
    # virtme-ng connects the guest's serial console to stderr. Appending: QEMU and virtme-ng share
    # the files.
    with open(results / "machine.log", "ab") as log, open(results / "console.log", "ab") as console:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=console,
            pass_fds=[virtiofsd],
            start_new_session=True,
        )
    os.close(virtiofsd)
    try:
        while process.poll() is None:
            if time.monotonic() > start + time_limit:
                stopped = f"the time limit of {time_limit} s was reached"
                break
            time.sleep(0.1)
            printed = forward(results, printed, output)
    finally:
        # All that bwrap started goes with it: it is the first process of their namespace.
        process.kill()
        process.wait()
        if printed := forward(results, printed, output):
            printed.close()
    end = outcome(results, stopped)
    end.seconds = time.monotonic() - start
    return end


def forward(results, printed, output):
    """Passes new output of the command to `output`. `printed` is the last call's result."""
    if output and not printed:
        try:
            printed = open(results / "output.log", "rb")
        except FileNotFoundError:
            return None
    if printed and (new := printed.read()):
        output(new)
    return printed
