# SPDX-License-Identifier: GPL-2.0
"""Tests of check: the order of suites, their cache, and the counting of failures."""

import contextlib
import io
import time
from dataclasses import dataclass

from . import Failure, artifact, check, kinds
from .results import Result
from .scratch import Scratch


@dataclass(frozen=True)
class Fake(kinds.Suite):
    """A suite that passes, unless its name says something else."""

    wants: tuple = ()
    key: str | None = "x"
    ran = []

    def needs(self):
        return self.wants

    def inputs(self, made):
        return self.key and [self.key, *map(str, made.values())]

    def run(self, directory, made, output=None):
        self.ran.append(self.name)
        if self.name == "breaks":
            raise Failure("there is no such thing")
        if self.name == "empty":
            return []
        return [Result("a", self.name != "fails", "why"), Result("b", None, "no device")]


class Runs(Scratch):
    def setUp(self):
        super().setUp()
        self.patch(artifact, CACHE=self.directory)
        Fake.ran.clear()

    def run_all(self, *table):
        """Returns the exit status, the last line of the output, and all of it."""
        results = self.directory / "results"
        artifact.remove(results)
        results.mkdir()
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            status = check.Run(table, results)()
        return status, output.getvalue().splitlines()[-1], output.getvalue()

    def test_passes(self):
        status, totals, output = self.run_all(Fake("one"), Fake("two"))
        self.assertEqual((status, totals), (0, "2 passed, 0 failed, 2 skipped"))
        self.assertIn("    skipped: b: no device", output)
        self.assertIn("| one ", (self.directory / "results/times.txt").read_text())

    def test_failure_is_shown(self):
        status, totals, output = self.run_all(Fake("one"), Fake("fails"))
        self.assertEqual((status, totals), (1, "1 passed, 1 failed, 2 skipped"))
        self.assertIn("    failed: a\n        why\n", output)

    def test_suite_that_cannot_run_has_failed(self):
        for name in "breaks", "empty":
            status, totals, _ = self.run_all(Fake("one"), Fake(name))
            self.assertEqual((status, totals), (1, "1 passed, 1 failed, 1 skipped"))

    def test_nothing_is_a_failure(self):
        self.assertEqual(self.run_all()[0], 1)

    def test_is_cached_if_it_passed_on_these_inputs(self):
        self.run_all(Fake("one"))
        self.assertIn("one: 1 passed, 0 failed, 1 skipped (cached)", self.run_all(Fake("one"))[2])
        self.run_all(Fake("one", key="y"))
        self.assertEqual(Fake.ran, ["one", "one"])

    def test_is_not_cached_if_it_failed_or_has_no_inputs(self):
        for suite in Fake("fails"), Fake("one", key=None):
            Fake.ran.clear()
            self.run_all(suite)
            self.run_all(suite)
            self.assertEqual(len(Fake.ran), 2)

    def test_needs_are_built_once(self):
        built = []
        self.patch(check, build=lambda need: built.append(need) or "path")
        self.run_all(Fake("one", wants=(("kernel", "x"),)), Fake("two", wants=(("kernel", "x"),)))
        self.assertEqual(built, [("kernel", "x")])

    def test_what_needs_nothing_runs_during_builds(self):
        def build(need):
            end = time.monotonic() + 5
            while "two" not in Fake.ran and time.monotonic() < end:
                time.sleep(0.01)

        self.patch(check, AT_ONCE=2, build=build)
        self.run_all(Fake("one", wants=(("kernel",),)), Fake("two"))
        self.assertEqual(Fake.ran, ["two", "one"])

    def test_failed_build(self):
        def fail(need):
            raise Failure("cannot be built", "end of the log")

        self.patch(check, build=fail)
        status, totals, output = self.run_all(Fake("one", wants=(("kernel",),)), Fake("two"))
        self.assertEqual((status, totals), (1, "1 passed, 1 failed, 1 skipped"))
        self.assertIn("end of the log", output)

    def test_order(self):
        self.patch(check, AT_ONCE=1)
        two = Fake("two", after=("one",))
        self.run_all(two, Fake("one"), Fake("nine", cost=9), Fake("five", cost=5))
        self.assertEqual(Fake.ran, ["nine", "five", "one", "two"])

    def test_what_a_suite_reads_runs_before_it(self):
        table = {"one": Fake("one"), "two": Fake("two", after=("one",))}
        self.patch(check.suites, by_name=lambda name, *_: table[name])
        self.patch(check, results_of=lambda _: contextlib.nullcontext(self.directory))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(check.test("two", None, ""), 0)
        self.assertEqual(Fake.ran, ["one", "two"])
