# SPDX-License-Identifier: GPL-2.0
"""Tests of ktap.py and results.py: text that the kernel's parser reads, and counts."""

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
    def counts(self, text):
        """Returns the counts that the kernel's parser finds, and the number of its errors."""
        results, errors = ktap.read(text)
        return totals(count(results)[0]), len(errors)

    def test_results_come_back(self):
        results, errors = ktap.read(ktap.text([PASSED, SKIPPED, Result("d", False, "why")]))
        self.assertEqual(errors, [])
        self.assertEqual(results, [PASSED, SKIPPED, Result("d", False, "  why")])

    def test_text_that_looks_like_a_result(self):
        counted = "1 passed, 1 failed, 0 skipped", 0
        self.assertEqual(self.counts(ktap.text([PASSED, FAILED])), counted)

    def test_subtests(self):
        good = Result("g # 1", True, "", [Result("x", True), Result("g # 1", True)])
        bad = Result("h", True, "", [PASSED, FAILED])
        self.assertEqual(self.counts(ktap.text([good, bad])), ("3 passed, 1 failed, 0 skipped", 0))

    def test_missing_result(self):
        for text in (
            "KTAP version 1\n1..2\nok 1 a\n",
            "TAP version 13\n1..2\n# Starting\nok 1 a\n",
            "KTAP version 1\n",
            "",
        ):
            self.assertEqual(self.counts(text)[1], 1, text)

    def test_kernel_log(self):
        for two, ok in ("ok", True), ("not ok", False):
            results, errors = ktap.read(KUNIT.format(two))
            self.assertEqual([result.passed() for result in results], [True, ok])
            self.assertEqual(errors, [])
        self.assertGreater(self.counts(KUNIT.split("[    0.2]")[0])[1], 0)


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
