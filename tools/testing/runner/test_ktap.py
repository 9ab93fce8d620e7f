# SPDX-License-Identifier: GPL-2.0
"""Tests of ktap. The kernel's parser is in the root only."""

import json
import tempfile
import unittest
from pathlib import Path

from . import IN_ROOT, ktap


def events(*lines):
    """Returns the Results of these events."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.events.jsonl"
        path.write_text(
            "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        )
        return ktap.from_events(path), ktap.observations(path)


def check(test, ok, what="holds"):
    return {
        "test": test,
        "event": "check",
        "what": what,
        "ok": ok,
        "why": None if ok else "it does not",
    }


PLAN = {"event": "plan", "tests": ["a", "b"]}
END_A = {"test": "a", "event": "end", "seconds": 1}
END_B = {"test": "b", "event": "end", "seconds": 1}
KUNIT = """\
[    0.1] KTAP version 1
[    0.1] 1..2
[    0.1]     KTAP version 1
[    0.1]     # Subtest: other
[    0.1]     1..1
[    0.1]     ok 1 fine
[    0.1] ok 1 other
[    0.1]     KTAP version 1
[    0.1]     # Subtest: ours
[    0.1]     # module: ours
[    0.1]     1..2
[    0.1]     ok 1 one
[    0.2] something else happens
[    0.2]     {} 2 two
[    0.2] ok 2 ours
"""


class Events(unittest.TestCase):
    def test_all_pass(self):
        results, _ = events(PLAN, check("a", True), END_A, check("b", True), END_B)
        self.assertEqual(
            [(result.name, result.passed()) for result in results], [("a", True), ("b", True)]
        )

    def test_failure(self):
        results, _ = events(PLAN, check("a", False), END_A, check("b", True), END_B)
        self.assertFalse(results[0].passed())
        self.assertIn("#   it does not", ktap.text(results))

    def test_planned_test_without_end_fails(self):
        results, _ = events(PLAN, check("a", True), END_A, check("b", True), '{"test": "b", "ev')
        self.assertEqual([result.passed() for result in results], [True, False])

    def test_test_that_asserts_nothing_fails(self):
        skip = {"test": "b", "event": "skip", "what": "x", "why": "no device"}
        results, _ = events(PLAN, END_A, skip, END_B)
        self.assertEqual([result.passed() for result in results], [False, False])

    def test_no_file(self):
        self.assertEqual(ktap.from_events("/nonexistent"), [])

    def test_observations(self):
        def observe(key, value, compared):
            return {
                "test": "a",
                "event": "observe",
                "key": key,
                "value": value,
                "compared": compared,
            }

        _, observed = events(PLAN, observe("resets", 1, True), observe("time", 3, False))
        self.assertEqual(observed, {"a": {"resets": "1"}})


class Compare(unittest.TestCase):
    def test_same(self):
        self.assertTrue(
            all(result.ok for result in ktap.compare({"a": {"k": "1"}}, {"a": {"k": "1"}}))
        )

    def test_difference(self):
        [result] = ktap.compare({"a": {"k": "1", "l": "2"}}, {"a": {"k": "2", "l": "2"}})
        self.assertEqual((result.ok, result.detail), (False, "k: 1 and 2"))

    def test_what_only_one_observed_differs(self):
        self.assertFalse(ktap.compare({"a": {"k": "1"}}, {"a": {}})[0].ok)
        self.assertFalse(ktap.compare({}, {"a": {"k": "1"}})[0].ok)


@unittest.skipUnless(IN_ROOT, "the kernel's parser is in the root")
class Totals(unittest.TestCase):
    def counts(self, text):
        totals = ktap.totals(text)
        return totals.passed, totals.failed, totals.skipped

    def test_counts(self):
        results = [("a", True, ""), ("b", False, "why\nnot ok 1 b"), ("c", None, "no device")]
        self.assertEqual(self.counts(ktap.text(results)), (1, 1, 1))

    def test_skips_and_failures_are_listed(self):
        totals = ktap.totals(ktap.text([("b", False, "why"), ("c", None, "no device")]))
        self.assertEqual(totals.failures, ["b", "      why"])
        self.assertEqual(list(totals.skips), ["c # no device"])

    def test_subtests(self):
        group = ktap.Result("g", True, "", [ktap.Result("x # 1", True), ktap.Result("g", True)])
        self.assertEqual(self.counts(ktap.text([group, ("a", True, "")])), (3, 0, 0))

    def test_failed_subtest(self):
        group = ktap.Result("g", True, "", [ktap.Result("x", True), ktap.Result("y", False, "why")])
        self.assertEqual(self.counts(ktap.text([group])), (1, 1, 0))

    def test_nothing_tested(self):
        for text in (
            "",
            "KTAP version 1\n",
            "KTAP version 1\n1..0\n",
            ktap.text([]),
            ktap.text([("a", None, "no")]),
        ):
            self.assertGreater(ktap.totals(text).failed, 0, text)

    def test_missing_result(self):
        self.assertGreater(ktap.totals("KTAP version 1\n1..2\nok 1 a\n").failed, 0)
        self.assertGreater(ktap.totals("TAP version 13\n1..2\n# Starting\nok 1 a\n").failed, 0)

    def test_missing_file(self):
        self.assertEqual(ktap.parse("/nonexistent").passed, 0)
        self.assertGreater(ktap.parse("/nonexistent").failed, 0)

    def test_kunit(self):
        self.assertEqual(self.counts(ktap.kunit(KUNIT.format("ok"), "ours")), (2, 0, 0))
        self.assertEqual(self.counts(ktap.kunit(KUNIT.format("not ok"), "ours")), (1, 1, 0))
        self.assertEqual(self.counts(ktap.kunit(KUNIT.format("ok") * 2, "ours")), (4, 0, 0))

    def test_kunit_suite_that_did_not_run(self):
        self.assertGreater(ktap.totals(ktap.kunit(KUNIT, "none")).failed, 0)
        self.assertGreater(ktap.totals(ktap.kunit(KUNIT.split("[    0.2]")[0], "ours")).failed, 0)


if __name__ == "__main__":
    unittest.main()
