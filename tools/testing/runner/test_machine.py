# SPDX-License-Identifier: GPL-2.0
"""Tests of the machine with systemd: the runner reads the events of its guest."""

import os
from unittest import mock

from machine import report

from . import events
from .scratch import Scratch


class Machine(Scratch):
    def test_events(self):
        self.enterContext(mock.patch.dict(os.environ, {"RESULTS": str(self.directory)}))

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

