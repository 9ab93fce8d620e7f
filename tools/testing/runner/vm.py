# SPDX-License-Identifier: GPL-2.0
"""Runs a command in a virtual machine that has the PCI devices of a topology.

virtme-ng owns the machine: it shares the root with the guest, boots the kernel and starts the
guest's user space. This module owns its command line, the time limit, and the scan of the kernel's
log. guest-init is its counterpart in the guest.
"""

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import REPO, TESTING

# virtme-ng takes the first virtiofsd of PATH, and this one comes first. The guest reads nothing
# that changes while it runs, so it may cache everything: without the cache a boot takes several
# times as long.
VIRTIOFSD = '#!/bin/sh\nexec /usr/libexec/virtiofsd --cache always "$@"\n'
PATH = "/tmp/virtiofsd:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# QEMU makes its maps of memory anew each time that a BAR appears or goes, and glibc gives the pages
# of the old ones back to the kernel. Without that, such operations take two thirds of the time.
ALLOCATOR = {"LD_PRELOAD": "libjemalloc.so.2"}

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
    r"|kmemleak: (?:\d+ new suspected|Cannot(?! allocate a scan area)|Unable|.*pool empty)"
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
    # Others may wait for a thread that has died. virtme-ng lets a panic end the guest.
    "oops=panic",
    # TCG's TSC is the host's one clock; the watchdog's cross-check of the CPUs only times out. So
    # does the test of the timer if the host is busy.
    "tsc=reliable", "no_timer_check",
    # An emulated processor has no such defects.
    "mitigations=off",
]  # fmt: skip


# On the debug kernel, kmemleak takes half of the time.
NO_KMEMLEAK = "kmemleak=off"


def virtme(machine, release, memory, more=()):
    """Returns the command that runs the machine, in the sandbox."""
    command = [
        # All kernels have virtiofs built in: without modules for virtme-ng, they need no initramfs.
        "virtme-run", "--kimg", release, "--mods", "none", "--disable-kvm",
        # The sandbox is read-only but for the results.
        "--rw", "--cwd", str(REPO), "--memory", memory or machine.memory, "--cpus", "2",
        # --script-sh would take one more device, the first one of the topologies.
        "--script-exec", str(TESTING / "guest-init"), "--show-boot-console",
    ]  # fmt: skip
    for argument in [*KERNEL_ARGUMENTS, *machine.kernel_arguments, *more]:
        command += ["--kopt", argument]
    return command + [
        "--qemu-opts",
        # With a newer processor model, TCG has more to emulate: a boot takes twice as long.
        "-accel", machine.accelerator, "-cpu", machine.cpu,
        # vfio needs an IOMMU that remaps interrupts. (The machine is q35 without KVM.)
        "-machine", "kernel-irqchip=split",
        "-device", "intel-iommu,intremap=on,caching-mode=on", *machine.arguments,
    ]  # fmt: skip


def sandbox(modules, results):
    """Returns the command that shows the guest's root to what follows, with `results` writable."""
    return [
        "bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc",
        "--perms", "1777", "--tmpfs", "/tmp",
        "--ro-bind", str(results / "virtiofsd"), "/tmp/virtiofsd/virtiofsd",
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

    def complaints(self):
        """Returns a sentence for each thing that is wrong, the command's own status aside."""
        return [f"splat: {line}" for line in self.splats] + ([self.reason] if self.reason else [])


def lines_of(path):
    """Returns the lines of a guest's log, which may not exist."""
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def splats(results):
    """Returns the lines of the kernel's log that report a bug, and the leaks."""
    kernel = lines_of(results / "dmesg.log") + lines_of(results / "console.log")
    # Indented lines are about the leak in the line before them.
    leaks = (line for line in lines_of(results / "kmemleak.log") if not line.startswith(" "))
    found = [*filter(SPLATS.search, kernel), *(f"kmemleak: {leak}" for leak in leaks)]
    return list(dict.fromkeys(found))


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


def line(machine, modules, results, memory, more):
    """Returns the command that boots virtme-ng's guest, for boot().

    modules: a directory lib/modules/VERSION with the kernel (vmlinuz), see modules.modules().
    more: arguments of the kernel.
    """
    (results / "virtiofsd").write_text(VIRTIOFSD)
    (results / "virtiofsd").chmod(0o755)
    return [*sandbox(modules, results), *virtme(machine, Path(modules).name, memory, more)]


def boot(line, machine, command, results, time_limit, output=None):
    """Runs `command` as root in the guest that `line` boots, and returns the Outcome.

    results: an empty directory, which the guest sees at $RESULTS, or /results.
    output: a function that gets the command's output, in bytes, as it comes.
    """
    # guest-init reads the first two, and writes the third.
    paths = "".join(f"{device_id} {path}\n" for device_id, path in machine.paths.items())
    (results / "topology-paths").write_text(paths)
    (results / "command").write_text("exec " + shlex.join(command) + "\n")
    (results / "output.log").touch()
    # virtme-ng connects the guest's serial console to stderr. Appending: QEMU and virtme-ng share
    # the files.
    with open(results / "machine.log", "ab") as log, open(results / "console.log", "ab") as console:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": console}
        environment = os.environ | ALLOCATOR
        process = subprocess.Popen(line, start_new_session=True, env=environment, **pipes)
    end, stopped = time.monotonic() + time_limit, ""
    with open(results / "output.log", "rb") as printed:
        try:
            while process.poll() is None and not stopped:
                time.sleep(0.1)
                if output:
                    output(printed.read())
                if time.monotonic() > end:
                    stopped = f"the time limit of {time_limit} s was reached"
        finally:
            # All that bwrap started goes with it: it is the first process of their namespace.
            process.kill()
            process.wait()
        if output:
            output(printed.read())
    return outcome(results, stopped)
