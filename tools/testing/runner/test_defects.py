# SPDX-License-Identifier: GPL-2.0
"""Tests of defects: reports that are taken for the defect, and those that are not."""

from . import defects, vm
from .scratch import Scratch

LOCKDEP = """\
[    1.0] something
[    1.1] WARNING: possible circular locking dependency detected
[    1.1] test/95 is trying to acquire lock: (reset_domains)
[    1.1] but task is already holding lock: (reflck)
[    1.1]  f+0x1/0x2 [vfio_pci_rs]
[    1.1]  </TASK>
"""
LEAK = "unreferenced object 0xffff888001 (size 128):\n"


class Reported(Scratch):
    def judge(self, dmesg=LOCKDEP, leaks=LEAK, status=0):
        self.write("dmesg.log", dmesg)
        self.write("kmemleak.log", leaks)
        return [test.ok for test in defects.reported(self.directory, vm.Outcome(status))]

    def test_both(self):
        self.assertEqual(self.judge(), [True, True, True])

    def test_none(self):
        self.assertEqual(self.judge(dmesg="", leaks=""), [False, False, True])

    def test_other_locks(self):
        self.assertFalse(self.judge(dmesg=LOCKDEP.replace("reset_domains", "x"))[0])

    def test_failed_tests(self):
        self.assertEqual(self.judge(status=1), [True, True, False])


class Found(Scratch):
    def test_only_a_failed_round_counts(self):
        for output, is_found in (
            ("    not ok round 3, after 12 operations: x\n", True),
            ("an operation does not end:\n", True),
            ("    not ok runs to its end: no device\n", False),
            ("    ok 500 operations\n", False),
        ):
            self.write("output.log", output)
            judged = defects.found(self.directory, None)
            self.assertEqual([result.ok for result in judged], [is_found], output)
