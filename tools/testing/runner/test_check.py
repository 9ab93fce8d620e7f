# SPDX-License-Identifier: GPL-2.0
"""Tests of check: the order of suites, what is cached, and what counts as a failure."""

import contextlib
import io
import tempfile
import threading
import unittest
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from . import IN_ROOT, Failure, artifact, check, ktap, suites
from .ktap import Result


@dataclass(frozen=True)
class Fake(suites.Suite):
    """A suite that passes, unless its name says something else."""

    wants: tuple = ()
    key: str | None = "x"
    ran = []

    def needs(self, long):
        return self.wants

    def inputs(self, made, long):
        return None if self.key is None else [self.key, *map(str, made.values())]

    def run(self, directory, made, long):
        self.ran.append(self.name)
        if self.name == "breaks":
            raise Failure("there is no such thing")
        if self.name == "empty":
            return []
        return [Result("a", self.name != "fails", "why"), Result("b", None, "no device")]


@unittest.skipUnless(IN_ROOT, "the kernel's parser is in the root")
class Runs(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cache = Path(directory.name)
        # The kernel's parser is in the true cache.
        ktap.totals("")
        patch = mock.patch.object(artifact, "CACHE", self.cache)
        patch.start()
        self.addCleanup(patch.stop)
        Fake.ran.clear()

    def run_all(self, *table, builders=None):
        results = self.cache / "results"
        artifact.remove(results)
        results.mkdir()
        run = check.Run(table, False, results, builders or {})
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            status = run()
        return status, output.getvalue()

    def test_passes(self):
        status, output = self.run_all(Fake("one"), Fake("two"))
        self.assertEqual(status, 0)
        self.assertEqual(output.splitlines()[-1], "2 passed, 0 failed, 2 skipped")
        self.assertIn("    skipped: b # no device", output)

    def test_failure_is_shown(self):
        status, output = self.run_all(Fake("one"), Fake("fails"))
        self.assertEqual(status, 1)
        self.assertEqual(output.splitlines()[-1], "1 passed, 1 failed, 2 skipped")
        self.assertIn("why", output)

    def test_suite_that_cannot_run_has_failed(self):
        for name in "breaks", "empty":
            status, output = self.run_all(Fake(name))
            self.assertEqual(
                (status, output.splitlines()[-1]), (1, "0 passed, 1 failed, 0 skipped")
            )

    def test_nothing_is_a_failure(self):
        self.assertEqual(self.run_all()[0], 1)

    def test_passed_is_cached(self):
        self.run_all(Fake("one"))
        _, output = self.run_all(Fake("one"))
        self.assertIn("one: 1 passed, 0 failed, 1 skipped (cached)", output)
        self.assertEqual(Fake.ran, ["one"])

    def test_failed_is_not_cached(self):
        self.run_all(Fake("fails"))
        self.run_all(Fake("fails"))
        self.assertEqual(Fake.ran, ["fails", "fails"])

    def test_other_inputs_are_not_cached(self):
        self.run_all(Fake("one"))
        self.run_all(Fake("one", key="y"))
        self.assertEqual(Fake.ran, ["one", "one"])

    def test_no_inputs_are_not_cached(self):
        self.run_all(Fake("one", key=None))
        self.run_all(Fake("one", key=None))
        self.assertEqual(Fake.ran, ["one", "one"])

    def test_needs_are_built_once(self):
        built = []
        builders = {"kernel": lambda name: built.append(name) or name}
        self.run_all(
            Fake("one", wants=(("kernel", "x"),)),
            Fake("two", wants=(("kernel", "x"),)),
            builders=builders,
        )
        self.assertEqual(built, ["x"])

    def test_failed_build(self):
        def fail():
            raise Failure("cannot be built", "end of the log")

        status, output = self.run_all(
            Fake("one", wants=(("kernel",),)), Fake("two"), builders={"kernel": fail}
        )
        self.assertEqual((status, output.splitlines()[-1]), (1, "1 passed, 1 failed, 1 skipped"))
        self.assertIn("end of the log", output)

    def test_after(self):
        self.run_all(Fake("two", after=("one",)), Fake("one"))
        self.assertEqual(Fake.ran, ["one", "two"])

    def test_times(self):
        self.run_all(Fake("one"))
        self.assertIn("| one ", (self.cache / "results/times.txt").read_text())


class Slots(unittest.TestCase):
    def test_longest_first(self):
        slots, order = check.Slots(1), []

        def work(cost):
            with slots.take(cost):
                order.append(cost)

        threads = [threading.Thread(target=work, args=[cost]) for cost in (2, 9, 5)]
        with slots.take(1):
            for thread in threads:
                thread.start()
            while len(slots.waiting) < 3:
                pass
        for thread in threads:
            thread.join()
        self.assertEqual(order, [9, 5, 2])


if __name__ == "__main__":
    unittest.main()
