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
LEAK = """\
unreferenced object 0xffff888001 (size 128):
  comm "test", pid 95
  backtrace (crc 0):
    0xffffffffc0000010
"""
LOADED = "# loaded vfio_pci_rs 4096 0 - Live 0xffffffffc0000000 (OE)\n"


class Reported(Scratch):
    def judge(self, dmesg=LOCKDEP, leaks=LEAK, output=LOADED, status=0):
        files = {"dmesg.log": dmesg, "kmemleak.log": leaks, "output.log": output}
        for name, text in files.items():
            self.write(name, text)
        self.write("exit-status", str(status))
        outcome = vm.outcome(self.directory, "")
        return [result.ok for result in defects.reported(self.directory, outcome)]

    def test_both(self):
        self.assertEqual(self.judge(), [True, True, True])

    def test_none(self):
        self.assertEqual(self.judge(dmesg="", leaks=""), [False, False, True])

    def test_other_locks(self):
        self.assertEqual(self.judge(dmesg=LOCKDEP.replace("reset_domains", "x"))[0], False)

    def test_two_reports(self):
        self.assertEqual(self.judge(dmesg=LOCKDEP * 2)[0], False)

    def test_leak_of_another_module(self):
        self.assertEqual(self.judge(output=LOADED.replace("c000", "d000")), [True, False, True])

    def test_another_splat(self):
        self.assertEqual(self.judge(dmesg=LOCKDEP + "[    2.0] WARNING: x\n"), [True, True, False])

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
