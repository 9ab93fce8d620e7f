# SPDX-License-Identifier: GPL-2.0
"""Tests of report: figures, targets, and what is written of results that lack something."""

import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from . import demo, report


def part(**cases):
    """Returns a guest's results; a case is {driver: [samples]}."""
    meta = {"kernel": "7.3", "processors": 2, "rounds": 2, "titles": {}}
    meta["drivers"] = {report.C: "C", report.OURS: "Rust"}
    return {"meta": meta, "cases": cases}


def walls(c, ours):
    return {
        driver: [{"wall_ns": value * 1e6, "lost": 0, "due": 8} for value in values]
        for driver, values in ((report.C, c), (report.OURS, ours))
    }


class Report(unittest.TestCase):
    def met(self, *parts):
        text, _ = report.targets(report.Benchmark(parts))
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
        return {row[0]: row[3] for row in rows}

    def test_targets(self):
        what = report.TARGETS[0][0]
        self.assertEqual(self.met(part(bus_8_open=walls([50, 60], [10, 11])))[what], "yes")
        self.assertEqual(self.met(part(bus_8_open=walls([50, 60], [20, 21])))[what], "no")
        self.assertEqual(set(self.met(part()).values()), {report.NOTHING})

    def test_losses(self):
        what = next(what for what, *_ in report.TARGETS if "resets lost" in what)
        lossy = walls([1], [1])
        self.assertEqual(self.met(part(vfs_7_close=lossy))[what], "yes")
        lossy[report.OURS][0]["lost"] = 1
        self.assertEqual(self.met(part(vfs_7_close=lossy))[what], "no")

    def test_spread(self):
        self.assertEqual(report.spread([2e6, 1e6, 1.2345e9], 1e6), "2 (1-1234)")
        self.assertEqual(report.spread([], 1), report.NOTHING)

    def test_files(self):
        with tempfile.TemporaryDirectory() as name:
            parts = [part(bus_8_open=walls([50], [10])), part(vfs_7_close=walls([1], [1]))]
            report.write(parts, Path(name), "somewhere")
            text = (Path(name) / "benchmark.md").read_text()
            self.assertIn("0 of 8", text)
            for picture in Path(name).glob("*.svg"):
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


if __name__ == "__main__":
    unittest.main()
