# SPDX-License-Identifier: GPL-2.0
"""Tests of driver.py, on a driver of a few lines."""

from . import driver, driver_files
from .scratch import Scratch


class Driver(Scratch):
    def setUp(self):
        super().setUp()
        self.patch(driver, REPO=self.directory, ALLOWED={})
        self.patch(driver, driver_files=lambda: driver_files(self.directory))

    def test_reexports_lead_to_where_an_item_is(self):
        self.write("vfio_pci_rs.rs", "mod vfio;\nmod reset;\n")
        exported = "pub(crate) use self::device::{Closed, Open as Opened};\n"
        self.write("vfio/mod.rs", "mod device;\n" + exported)
        self.write("vfio/device.rs", "use super::function as other;\n")
        self.write("vfio/function.rs", "// use crate::reset::Nothing;\n")
        tree = "use crate::{\n    vfio::{\n        Closed, //\n    }, //\n};\n"
        self.write("reset.rs", tree + "fn f() { crate::vfio::function::g() }\n")
        reset, device, function = "crate::reset", "crate::vfio::device", "crate::vfio::function"
        expected = {(reset, device), (reset, function), (device, function)}
        self.assertEqual(driver.imports(), expected)
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
        self.write("COPYING")
        self.assertEqual(len(list(driver.unlicensed())), 3)
