# SPDX-License-Identifier: GPL-2.0
"""Tests of driver.py, on a driver of a few lines."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from . import driver, driver_files


class Driver(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.repo = Path(directory.name)
        for name, value in ("REPO", self.repo), ("driver_files", lambda: driver_files(self.repo)), ("ALLOWED", {}):
            patch = mock.patch.object(driver, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def write(self, name, text):
        path = self.repo / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def test_reexports_lead_to_where_an_item_is(self):
        self.write("vfio_pci_rs.rs", "mod vfio;\nmod reset;\n")
        self.write("vfio/mod.rs", "mod device;\npub(crate) use self::device::{Closed, Open as Opened};\n")
        self.write("vfio/device.rs", "use super::function::{self, Function};\n")
        self.write("vfio/function.rs", "// use crate::reset::Nothing;\n")
        self.write("reset.rs", "use crate::{\n    vfio::{\n        Closed, //\n    }, //\n};\nfn f() { crate::vfio::function::g() }\n")
        expected = {("reset", "vfio::device"), ("reset", "vfio::function"), ("vfio::device", "vfio::function")}
        self.assertEqual(driver.imports(), {(f"crate::{user}", f"crate::{used}") for user, used in expected})
        self.assertEqual(list(driver.circles()), [])

    def test_a_circle_is_found_unless_it_is_allowed(self):
        self.write("a.rs", "use crate::b::B;\n")
        self.write("b.rs", "use crate::c::C;\n")
        self.write("c.rs", "use crate::a::A;\n")
        self.write("d.rs", "use crate::a::A;\n")
        self.assertEqual(len(list(driver.circles())), 3)
        driver.ALLOWED["crate::c", "crate::a"] = "a reason"
        self.assertEqual(list(driver.circles()), [])
        self.write("c.rs", "")
        self.assertEqual(len(list(driver.circles())), 1)

    def test_unsafe_and_length(self):
        self.write("reset.rs", "// unsafe in words\n" * (driver.LONGEST + 1))
        self.write("reflck/a.rs", "unsafe {}\n")
        self.write("vfio/a.rs", "unsafe {}\n")
        self.assertEqual([line.split()[0] for line in driver.unsafe_outside()], ["reflck/a.rs"])
        self.assertEqual([line.split()[0] for line in driver.too_long()], ["reset.rs"])


if __name__ == "__main__":
    unittest.main()
