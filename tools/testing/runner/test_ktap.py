# SPDX-License-Identifier: GPL-2.0
"""Tests of ktap.py and results.py."""

import unittest

from . import ktap
from .results import Result, count, totals
from .scratch import Scratch, needs_parser

KUNIT = """\
[    0.1] KTAP version 1
[    0.1] 1..2
[    0.1]     KTAP version 1
[    0.1]     # Subtest: other
[    0.1]     1..1
[    0.1]     ok 1 fine
[    0.1] ok 1 other
[    0.1] something happens
[    0.1]     KTAP version 1
[    0.1]     # Subtest: ours
[    0.1]     # module: ours
[    0.1]     1..2
[    0.1]     ok 1 one
[    0.2] something else
[    0.2]     {} 2 two
[    0.2] ok 2 ours
"""
PASSED, FAILED = Result("a", True), Result("b", False, "why\nnot ok 1 b")
SKIPPED = Result("c", None, "no device")


@needs_parser
class Ktap(Scratch):
    def test_results(self):
        text = "KTAP version 1\n1..3\nok 1 a\nok 2 c # SKIP no device\n#   why\nnot ok 3 b\n"
        results, errors = ktap.read(text)
        self.assertEqual(errors, [])
        self.assertEqual(results, [PASSED, SKIPPED, Result("b", False, "  why")])

    def test_missing_result(self):
        for text in (
            "KTAP version 1\n1..2\nok 1 a\n",
            "TAP version 13\n1..2\n# Starting\nok 1 a\n",
            "KTAP version 1\n",
            "",
        ):
            self.assertEqual(len(ktap.read(text)[1]), 1, text)

    def test_kernel_log(self):
        for two, ok in ("ok", True), ("not ok", False):
            results, errors = ktap.read(KUNIT.format(two))
            self.assertEqual([result.passed() for result in results], [True, ok])
            self.assertEqual(errors, [])
        self.assertTrue(ktap.read(KUNIT.split("[    0.2]")[0])[1])


class Count(unittest.TestCase):
    def test_failures_and_skips_are_listed(self):
        counts, lines = count([PASSED, FAILED, SKIPPED, SKIPPED])
        self.assertEqual(totals(counts), "1 passed, 1 failed, 2 skipped")
        failed = ["failed: b", "    why", "    not ok 1 b"]
        self.assertEqual(lines, [*failed, "skipped: c: no device (2 times)"])

    def test_nothing_tested(self):
        for results in [], [SKIPPED]:
            self.assertEqual(count(results)[0][False], 1)

    def test_failure_beside_subtests_that_passed(self):
        counts, lines = count([Result("g", False, "why", [PASSED])])
        self.assertEqual((totals(counts), lines[0]), ("1 passed, 1 failed, 0 skipped", "failed: g"))
