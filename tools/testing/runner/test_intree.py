# SPDX-License-Identifier: GPL-2.0
"""Tests of intree.py: a tree of the few files that the graft looks for."""

import os

from . import Failure, intree
from .scratch import Scratch

TREE = {
    "drivers/vfio/pci/vfio_pci_core.c": "",
    "rust/kernel/pci.rs": "",
    "drivers/vfio/pci/Makefile": "obj-$(CONFIG_A) += a/\nobj-$(CONFIG_B) += b/\nrest\n",
    "drivers/vfio/pci/Kconfig": 'source "a"\nendif\n',
    "tools/testing/selftests/Makefile": "TARGETS += vfio\nTARGETS += x86\n",
    "Documentation/driver-api/index.rst": "   vfio\n   vfio-pci-acceptance\n   w1\n",
    "MAINTAINERS": "VFIO\nF:	drivers/vfio/pci/qat/\nOTHER\n",
}


class Graft(Scratch):
    def setUp(self):
        super().setUp()
        for name, text in TREE.items():
            self.write(name, text)
        self.patch(intree, apply_patches=lambda tree: None)
        self.tree = self.directory

    def test_adds_lines_once_and_where_they_belong(self):
        for _ in range(2):
            intree.graft(self.tree)
            makefile = (self.tree / "drivers/vfio/pci/Makefile").read_text().splitlines()
            self.assertEqual(makefile[2:], ["", "obj-$(CONFIG_VFIO_PCI_RS) += rust/", "rest"])

    def test_leaves_links_and_time_stamps_alone(self):
        link = self.tree / "link"
        os.link(self.tree / "MAINTAINERS", link)
        intree.graft(self.tree)
        self.assertEqual(link.read_text(), TREE["MAINTAINERS"])
        before = {path: path.stat().st_mtime_ns for path in self.tree.rglob("*")}
        intree.graft(self.tree)
        self.assertEqual(before, {path: path.stat().st_mtime_ns for path in self.tree.rglob("*")})

    def test_removes_what_the_driver_no_longer_has_and_keeps_what_tools_made(self):
        old = self.write(f"{intree.TARGET}/vfio/old.rs")
        made = self.write(f"{intree.TARGET}/bindings/bindings_generated.rs")
        intree.graft(self.tree)
        self.assertEqual((old.exists(), made.exists()), (False, True))

    def test_names_what_a_tree_lacks(self):
        (self.tree / "MAINTAINERS").unlink()
        with self.assertRaisesRegex(Failure, "MAINTAINERS"):
            intree.graft(self.tree)
