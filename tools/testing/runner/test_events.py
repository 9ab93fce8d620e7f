# SPDX-License-Identifier: GPL-2.0
"""Tests of events.py."""

import json

from . import events
from .results import Result
from .scratch import Scratch

PLAN = {"event": "plan", "tests": ["a", "b"]}
HOLDS = {"event": "check", "what": "holds", "ok": True, "why": None}
FAILS = {"event": "check", "what": "holds", "ok": False, "why": "it does not"}
SKIP = {"event": "skip", "what": "holds", "why": "no device"}
END = {"event": "end", "seconds": 1}


class Events(Scratch):
    def file(self, a=(), b=(), end=""):
        """Returns a file with these events of the tests a and b."""
        tests = [("a", event) for event in a] + [("b", event) for event in b]
        lines = [PLAN, *({"test": test} | event for test, event in tests)]
        return self.write("x.events.jsonl", "\n".join([*map(json.dumps, lines), end]))

    def passed(self, *arguments):
        return [result.passed() for result in events.results(self.file(*arguments))]

    def test_passed_and_failed(self):
        self.assertEqual(self.passed([HOLDS, END], [HOLDS, FAILS, END]), [True, False])
        [failed] = events.results(self.file([FAILS, END], [HOLDS, END]))[0].subtests
        self.assertEqual(failed, Result("holds", False, "it does not"))

    def test_planned_test_without_end_fails(self):
        self.assertEqual(self.passed([HOLDS, END], [HOLDS], '{"test": "b", "ev'), [True, False])

    def test_test_that_asserts_nothing_fails(self):
        self.assertEqual(self.passed([END], [SKIP, END]), [False, False])

    def test_no_file(self):
        self.assertEqual(events.results(self.directory / "none"), [])

    def test_observations(self):
        observe = {"event": "observe", "key": "resets", "value": 1, "compared": True}
        path = self.file([observe], [observe | {"key": "time", "compared": False}])
        self.assertEqual(events.observations(path), {"a": {"resets": "1"}})
        self.assertIn("b", events.observations(path, only_compared=False))

    def test_compare(self):
        same = {"a": {"k": "1", "l": "2"}}
        self.assertEqual(events.compare(same, same), [Result("a", True)])
        difference = Result("a", False, "k: 1 and 2")
        self.assertEqual(events.compare(same, {"a": {"k": "2", "l": "2"}}), [difference])
        for one, other in (same, {"a": {"k": "1"}}), ({}, same):
            self.assertFalse(events.compare(one, other)[0].ok)
