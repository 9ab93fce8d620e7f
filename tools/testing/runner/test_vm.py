# SPDX-License-Identifier: GPL-2.0
"""Tests of vm and topology: the arguments of QEMU, splats, and outcomes."""

import unittest

from . import Failure, vm
from .scratch import Scratch
from .topology import Topology, load

KINDS = {"port": "pcie-root-port,hotplug=off"}

SPLATS = """\
[   12.3] WARNING: CPU: 1 PID: 93 at drivers/vfio/vfio_main.c:1 vfio_x+0x1/0x2
[   12.3] WARNING: possible circular locking dependency detected
[   12.3] BUG: KASAN: slab-use-after-free in vfio_x+0x1/0x2
[   12.3] BUG: kernel NULL pointer dereference, address: 0000000000000010
[   12.3] BUG kmalloc-64 (Not tainted): Poison overwritten
[   12.3] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1
[   12.3] INFO: task scenarios:93 blocked for more than 60 seconds.
[   12.3] rcu: INFO: rcu_sched detected stalls on CPUs/tasks: { 1 }
[   12.3] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
[   12.3] kmemleak: Cannot allocate a kmemleak_object structure
[   12.3] rust_kernel: panicked at drivers/x.rs:1
[   12.3] ODEBUG: free active (active state 0) object: (____ptrval____)
[   12.3] refcount_t: underflow; use-after-free.
[   12.3] UBSAN: array-index-out-of-bounds in x.c:1
[   12.3] Kernel panic - not syncing: Fatal exception
[   12.3] list_del corruption. prev->next should be 0
"""

NO_SPLATS = """
[    0.0] ODEBUG: selftest passed
[    0.0] ODEBUG: 17 of 17 active objects replaced
[    0.0] Kernel panic - not syncing: VFS: Unable to mount root fs on ""
[    0.0] kmemleak: Cannot allocate a scan area
[    0.0] kmemleak: Kernel memory leak detector disabled
[    0.0] kmemleak: Kernel memory leak detector initialized (mem pool available: 1)
[    0.0] rcu: Hierarchical RCU implementation.
[    0.0] vfio_pci_rs 0000:01:00.0: the bus was reset
""".splitlines()[1:]


def topology(*devices, **settings):
    return Topology({"devices": devices, **settings}, KINDS)


class Topologies(unittest.TestCase):
    def test_mistakes(self):
        # Ranges of two lengths, and a device behind one that comes later.
        for error, device in (ValueError, "a.{0-1} 08.{0-2} edu"), (KeyError, "a p/00.0 edu"):
            with self.assertRaises(error):
                topology(device, "p 08.0 port")
        with self.assertRaisesRegex(Failure, "among .*demo"):
            load("none")


class Logs(Scratch):
    def outcome(self, stopped="", **files):
        for name, text in files.items():
            self.write(name.replace("_log", ".log").replace("_", "-"), text)
        end = vm.outcome(self.directory, stopped)
        return end.status, end.complaints()

    def test_splats(self):
        for line in SPLATS.splitlines():
            self.assertTrue(vm.SPLATS.search(line), line)
        for line in NO_SPLATS:
            self.assertFalse(vm.SPLATS.search(line), line)

    def test_leaks(self):
        leak = "unreferenced object 0x1 (size 8):"
        _, complaints = self.outcome(exit_status="0", kmemleak_log=f"{leak}\n  comm x\n")
        self.assertEqual(complaints, [f"splat: kmemleak: {leak}"])

    def test_status(self):
        self.assertEqual(self.outcome(dmesg_log="fine\n", exit_status="3\n"), (3, []))

    def test_splat_in_both_logs_counts_once(self):
        logs = {"dmesg_log": "WARNING: x\n", "console_log": "WARNING: x\n"}
        self.assertEqual(self.outcome(exit_status="0", **logs), (0, ["splat: WARNING: x"]))

    def test_no_status(self):
        self.assertIn("without an exit status", self.outcome()[1][0])
        self.assertEqual(self.outcome("the time limit"), (None, ["the time limit"]))
        missing = self.outcome(unmapped="a at 08.0\n")[1][0]
        self.assertIn("no PCI device for a at 08.0", missing)
