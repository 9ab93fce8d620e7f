# SPDX-License-Identifier: GPL-2.0
"""Tests of series.py and series_check.py that need no kernel."""

import unittest

from . import Failure, series, series_check


class Letter(unittest.TestCase):
    def test_has_the_table_of_the_benchmark(self):
        text = series.letter()
        self.assertIn("\n8 functions, groups: start ", text)
        self.assertNotIn("@", text)


class Warnings(unittest.TestCase):
    KNOWN = "CC a.o\na.c:12:3: warning: unused variable 'x'\n"

    def test_a_known_one_may_move(self):
        moved = self.KNOWN.replace("12:3", "24:5")
        known = series_check.warnings(self.KNOWN)
        self.assertEqual(1, len(known))
        series_check.refuse(series_check.warnings(moved) - known)

    def test_a_new_one_fails(self):
        with self.assertRaises(Failure):
            series_check.refuse(series_check.warnings(self.KNOWN) - set())
