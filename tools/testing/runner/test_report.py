# SPDX-License-Identifier: GPL-2.0
"""Tests of report: figures, targets, and what is written of results that lack something."""

import contextlib
import io
import unittest
from xml.etree import ElementTree

from . import demo, report
from .scratch import Scratch
from .terminal import Terminal


def part(**cases):
    """Returns a guest's results; a case is {driver: [samples]}."""
    meta = {"kernel": "7.3", "processors": 2, "rounds": 2}
    meta["drivers"] = [report.C, report.OURS, report.AS_C]
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
        target = "bus_8_open of vfio-pci / "
        self.assertEqual(self.met(target, bus_8_open=walls([50, 60], [10, 11])), "yes")
        self.assertEqual(self.met(target, bus_8_open=walls([50, 60], [20, 21])), "no")
        self.assertEqual(self.met(target), report.NOTHING)
        for lost, met in (0, "yes"), (1, "no"):
            self.assertEqual(self.met("lost of vfs_7", vfs_7_close=walls([1], [1], lost)), met)

    def test_the_least(self):
        target, equal = "any open, ", walls([10, 10], [10, 10])
        self.assertEqual(self.met(target, bus_1_open=equal, thread_8_open=equal), "yes")
        self.assertEqual(self.met(target, bus_1_open=equal, dirty_1_open=walls([9], [10])), "no")

    def test_waking(self):
        one, eight = ({report.AS_C: [{"wake_ns": time}]} for time in (20, 30))
        self.assertEqual(self.met("wake_8 of", counted_wake_1=one, counted_wake_8=eight), "yes")
        self.assertEqual(self.met("wake_8 of", counted_wake_8=eight), report.NOTHING)

    def test_growth(self):
        target, few = "one of 100 containers", {report.OURS: [{"processor_ns": 10}]}
        for time, met in (119, "yes"), (121, "no"):
            many = {report.OURS: [{"processor_ns": time}]}
            cases = {"containers_10_bind": few, "containers_100_bind": many}
            self.assertEqual(self.met(target, **cases), met)
        self.assertEqual(self.met(target), report.NOTHING)

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
    def unexpected(self, c=None, ours=None, times=(2000, 100)):
        """Returns how many rows are not as expected, with changes of the expected results."""
        same = {"written": "1", "line": "1", "address": "10.0.2.15", "failures": "none"}
        c = {**same, "lost": "42", "found": demo.LEFT, "log": "0", "waits": "24"} | (c or {})
        ours = {**same, "lost": "0", "found": "0", "log": "2", "waits": "0"} | (ours or {})
        names = (f"qemu_bus_groups_{case}" for _, case, _ in demo.TIMES)
        cases = {name: walls(*([time] for time in times)) for name in names}
        rows = demo.rows(c, ours, report.Benchmark([part(**cases)]))
        return sum(not ok for *_, ok in rows)

    def test_rows(self):
        self.assertEqual(self.unexpected(), 0)
        self.assertEqual(self.unexpected(times=(2000, 1900)), len(demo.TIMES))
        # A time that cannot be measured does not make any ratio.
        self.assertEqual(self.unexpected(times=(30, 0)), 1)
        for change in (
            {"line": "2"}, {"address": "none"}, {"lost": "7"}, {"found": "0x1"}, {"log": "0"},
            {"waits": "0 or 8"}, {"failures": "yes"},
        ):  # fmt: skip
            self.assertEqual(self.unexpected(ours=change), 1)
        self.assertEqual(self.unexpected(c={"lost": "0", "found": "0"}), 2)
        self.assertFalse(any(ok for *_, ok in demo.rows({}, {}, None)))

    def test_waits(self):
        samples = [{"at_open": 0, "by_qemu": count, "at_close": 0} for count in (8, 0, 8)]
        times = report.Benchmark([part(qemu_bus_groups_restart={report.OURS: samples})])
        self.assertEqual(demo.waits(times, report.OURS), "0 or 8")

    def test_picture(self):
        screen = Terminal("make demo")
        with contextlib.redirect_stdout(io.StringIO()):
            screen.notes(b"# boot\n    # a <&\n    o")
            screen.notes(b"k b\n    # c")
            screen.print("1 | 2\n")
        self.assertEqual(screen.lines, ["  a <&", "1 | 2", ""])
        texts = ElementTree.fromstring(screen.picture()).iter("{http://www.w3.org/2000/svg}text")
        self.assertEqual([text.text for text in texts], ["$ make demo", "  a <&", "1 | 2"])
