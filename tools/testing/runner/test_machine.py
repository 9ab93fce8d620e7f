# SPDX-License-Identifier: GPL-2.0
"""Tests of the machine with systemd: that the runner reads the events of its guest, its command."""

import os
from unittest import mock

from machine import report

from . import events, machine, suites, topology
from .scratch import Scratch


class Machine(Scratch):
    def setUp(self):
        super().setUp()
        environment = mock.patch.dict(os.environ, {"RESULTS": str(self.directory)})
        environment.start()
        self.addCleanup(environment.stop)

    def test_events(self):
        def good(test, driver):
            test.eq("one is one", 1, driver)
            test.seen("key", 2, compared=True)
            return report.REBOOT

        def bad(test, driver):
            raise RuntimeError("broken")

        plan = ["good", "bad", "late"]
        first = report.Report(plan, is_new=True)
        self.assertEqual(first.run(good, 1), report.REBOOT)
        self.assertFalse(first.failed)
        # After the reboot, it goes on; a failure before the next one is remembered.
        report.Report(plan, is_new=False).run(bad, 1)
        self.assertTrue(report.Report(plan, is_new=False).failed)
        path = self.directory / "tools.events.jsonl"
        passed = {result.name: result.passed() for result in events.results(path)}
        self.assertEqual(passed, {"good": True, "bad": False, "late": False})
        self.assertEqual(events.observations(path), {"good": {"key": "2"}})

    def test_command(self):
        line = machine.sandbox("/root", "/results-of-host", {"mnt": "/packages"})
        at = line.index("/packages")
        self.assertEqual(line[at - 1 : at + 2], ["--ro-bind", "/packages", "/tmp/machine/mnt"])
        script = machine.qemu(topology.load("tools"), "/vmlinuz")[-1]
        self.assertIn("hubport,id=net.1", script)
        self.assertNotIn("virtme", script)

    def test_by_name(self):
        chosen = suites.by_name("dpdk+qemu-beside", None, "vfio_pci_rs")
        self.assertEqual(chosen.command, "python3 -m machine beside dpdk qemu")
        self.assertEqual(chosen.modules, "rs")
