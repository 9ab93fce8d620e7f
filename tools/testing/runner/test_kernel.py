# SPDX-License-Identifier: GPL-2.0
"""Tests of kernel.py that build nothing."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from . import Failure, artifact, kernel


class Working(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cache = Path(directory.name)
        self.work = self.cache / "work"
        for module in artifact, kernel:
            patch = mock.patch.object(module, "CACHE", self.cache)
            patch.start()
            self.addCleanup(patch.stop)

    def stays_after(self, error):
        """Returns whether the directory of a build that ends with `error` is there for the next one."""
        with self.assertRaises(error), kernel.working("perf", self.work):
            self.work.mkdir()
            raise error("the end")
        with kernel.working("perf", self.work):
            return self.work.exists()

    def test_a_failed_build_goes_on(self):
        self.assertTrue(self.stays_after(Failure))

    def test_a_killed_build_starts_again(self):
        self.assertFalse(self.stays_after(KeyboardInterrupt))

    def test_options(self):
        config = self.cache / "config"
        config.write_text('# CONFIG_A is not set\nCONFIG_B=m\nCONFIG_C="text"\n# CONFIG_D=y\n')
        self.assertEqual(kernel.options(config), {"CONFIG_A": "n", "CONFIG_B": "m", "CONFIG_C": '"text"'})

    def test_a_warning_removes_what_was_built(self):
        self.work.mkdir()
        kernel.refuse_warnings("no warnings here", self.work)
        with self.assertRaises(Failure):
            kernel.refuse_warnings("a.c:1: warning: unused", self.work)
        self.assertFalse(self.work.exists())


if __name__ == "__main__":
    unittest.main()
