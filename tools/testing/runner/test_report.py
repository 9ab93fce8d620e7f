# SPDX-License-Identifier: GPL-2.0
"""Tests of report: figures, targets, and what is written of results that lack something."""

import unittest
from xml.etree import ElementTree

from . import demo, report
from .scratch import Scratch


def part(**cases):
    """Returns a guest's results; a case is {driver: [samples]}."""
    meta = {"kernel": "7.3", "processors": 2, "rounds": 2, "titles": {}}
    meta["drivers"] = dict.fromkeys((report.C, report.OURS, report.AS_C), "")
    return {"meta": meta, "cases": cases}


def walls(c, ours, lost=0):
    """Returns a case with these wall times in ms, a time a round."""
    samples = {report.C: c, report.OURS: ours, report.AS_C: ours}
    return {
        driver: [{"wall_ns": value * 1e6, "lost": lost, "due": 8} for value in values]
        for driver, values in samples.items()
    }


class Report(Scratch):
    def met(self, target, **cases):
        """Returns the last cell of a target's line."""
        lines = report.targets(report.Benchmark([part(**cases)])).splitlines()
        [line] = (line for line in lines if target in line)
        return line.split("|")[-2].strip()

    def test_targets(self):
        target = "8 functions of one bus opened together, "
        self.assertEqual(self.met(target, bus_8_open=walls([50, 60], [10, 11])), "yes")
        self.assertEqual(self.met(target, bus_8_open=walls([50, 60], [20, 21])), "no")
        self.assertEqual(self.met(target), report.NOTHING)
        for lost, met in (0, "yes"), (1, "no"):
            self.assertEqual(self.met("resets lost", vfs_7_close=walls([1], [1], lost)), met)

    def test_the_least(self):
        target, equal = "any open, ", walls([10, 10], [10, 10])
        self.assertEqual(self.met(target, bus_1_open=equal, thread_8_open=equal), "yes")
        self.assertEqual(self.met(target, bus_1_open=equal, dirty_1_open=walls([9], [10])), "no")

    def test_waking(self):
        cases = {}
        for count, time in ((1, 20), (8, 30), (64, 50)):
            cases[f"wake_{count}"] = {report.AS_C: [{"wake_ns": time * 1e6}]}
        self.assertEqual(self.met("wake 8 ", **cases), "yes")
        self.assertEqual(self.met("wake 64 ", **cases), "no")
        self.assertEqual(self.met("wake 8 ", wake_8=cases["wake_8"]), report.NOTHING)

    def test_spread(self):
        self.assertEqual(report.spread([2e6, 1e6, 1.2345e9], 1e6), "2 (1-1234)")
        self.assertEqual(report.spread([], 1), report.NOTHING)

    def test_files(self):
        parts = [part(bus_8_open=walls([50], [10])), part(vfs_7_close=walls([1], [1], 3))]
        report.write(parts, self.directory)
        text = (self.directory / "benchmark.md").read_text()
        self.assertIn("3 of 8", text)
        pictures = list(self.directory.glob("*.svg"))
        self.assertEqual(len(pictures), 2)
        for picture in pictures:
            ElementTree.parse(picture)
            self.assertIn(picture.name, text)


class Demo(unittest.TestCase):
    def test_rows(self):
        ours = {
            key: expected.replace("*", "1").strip("[]").replace("0-9]", "")
            for _, key, expected, _ in demo.ROWS
        }
        c = {key: value for key, value in ours.items() if key not in ("domain", "dirty_after")}
        self.assertEqual({row[-1] for row in demo.rows(ours, c)}, {"ok"})
        ours["resets_at_release"] = "2"
        self.assertEqual(sum(row[-1] != "ok" for row in demo.rows(ours, c)), 1)
        self.assertTrue(all(row[-1] != "ok" for row in demo.rows({}, {})))
