# SPDX-License-Identifier: GPL-2.0
"""The base of tests that have files."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from . import IN_ROOT

needs_parser = unittest.skipUnless(IN_ROOT, "the kernel's parser is in the root")


class Scratch(unittest.TestCase):
    """A test with an empty directory of its own."""

    def setUp(self):
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, name, text=""):
        """Writes a file of the directory, and returns its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def patch(self, module, **values):
        """Replaces names of a module until the test ends."""
        for name, value in values.items():
            self.enterContext(mock.patch.object(module, name, value))
