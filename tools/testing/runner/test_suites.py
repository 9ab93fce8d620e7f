# SPDX-License-Identifier: GPL-2.0
"""Tests of suites: the table, and what counts as a selftest's result."""

import shlex
import tempfile
import unittest
from pathlib import Path

from . import IN_ROOT, Failure, guest_selftests, kernel, suites, vm
from .ktap import Result


class Table(unittest.TestCase):
    guests = [suite for suite in suites.SUITES if isinstance(suite, suites.Guest)]

    def test_names(self):
        names = [suite.name for suite in suites.SUITES]
        self.assertEqual(len(names), len(set(names)))
        for suite in suites.SUITES:
            self.assertLessEqual(set(suite.after), set(names))

    def test_guests(self):
        for guest in self.guests:
            self.assertIn(guest.kernel, kernel.KERNELS)
            self.assertTrue(vm.topology(guest.topology).paths)
            for long in False, True:
                self.assertTrue(shlex.split(guest.line(long)), guest.name)

    def test_guests_on_c_do_not_depend_on_the_driver(self):
        for guest in self.guests:
            if "vfio-pci" in guest.command:
                self.assertIn(guest.modules, ("stock", "core"), guest.name)

    def test_long_form(self):
        guest = suites.Guest("g", command="{programs}/x --few", long="{programs}/x")
        self.assertEqual((guest.line(False), guest.line(True)), (guest.command, guest.long))
        self.assertEqual(guest.needs(False), (("programs",), ("modules", "debian", "rs")))

    def test_by_name(self):
        self.assertEqual(suites.by_name("noiommu", None, "vfio_pci_rs").topology, "noiommu")
        one = suites.by_name("vfio_pci_device_test.x", None, "vfio-pci")
        self.assertEqual((one.topology, one.kernel, one.modules), ("selftests", "perf", "core"))
        self.assertTrue(one.command.endswith("vfio-pci {selftests} vfio_pci_device_test.x"))
        program, tests = next(iter(suites.own_selftests().items()))
        own = suites.by_name(tests[0], "debug", "vfio_pci_rs")
        self.assertEqual((own.topology, own.kernel, own.modules), ("scenarios", "debug", "rs"))
        self.assertTrue(own.command.endswith(f"{program}.{tests[0]}"))


class Guests(unittest.TestCase):
    def test_options(self):
        line = guest_selftests.command("p", ["t", "f.v.t"], ["0000:01:00.0"])
        self.assertEqual(line[3:], ["p", "-t", "t", "-r", "f.v.t", "0000:01:00.0"])

    def test_environment(self):
        topology = {"flr.port": "0", "flr.0": "1", "flr.1": "2", "igb.pf": "3", "conv.a": "4"}
        variables = guest_selftests.environment("vfio-pci", topology)
        self.assertEqual(variables["VFIO_PCI_RS_FLR"], "1 2")
        self.assertEqual(variables["VFIO_PCI_RS_PF"], "3")
        self.assertEqual(variables["VFIO_PCI_RS_EDU"], "4")
        self.assertEqual(variables["VFIO_PCI_RS_BUS"], "")

    def test_kernel_log(self):
        clean = vm.Outcome(status=1)
        self.assertTrue(suites.kernel_log(clean, [Result("a", False)]).ok)
        # No test failed, so something else did.
        self.assertFalse(suites.kernel_log(clean, [Result("a", True)]).ok)
        self.assertFalse(suites.kernel_log(vm.Outcome(status=0, splats=["BUG: x"]), []).ok)
        self.assertFalse(suites.kernel_log(vm.Outcome(reason="the time limit"), []).ok)


@unittest.skipUnless(IN_ROOT, "the kernel's parser is in the root")
class Selftests(unittest.TestCase):
    def result(self, tap, status):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "x_test.tap"
            path.write_text(tap)
            if status is not None:
                path.with_suffix(".status").write_text(f"{status}\n")
            return suites.selftest(path)

    def test_outcomes(self):
        tap = "TAP version 13\n1..2\n# Starting 2 tests\nok 1 f.a\nok 2 f.b # SKIP no device\n"
        result = self.result(tap, 0)
        self.assertTrue(result.passed())
        self.assertEqual([leaf.ok for _, leaf in result.leaves()], [True, None])
        self.assertFalse(self.result(tap.replace("ok 1", "not ok 1"), 1).passed())

    def test_incomplete(self):
        for tap, status in (
            ("TAP version 13\n1..9\nok 1 f.a\n#  RUN f.b\n", 0),
            ("TAP version 13\n1..1\nok 1 f.a\n", 1),
            ("TAP version 13\n1..1\nok 1 f.a\n", None),
            ("failed to open /dev/vfio/1\n", 1),
            ("", 0),
        ):
            result = self.result(tap, status)
            self.assertFalse(result.passed(), tap)
            self.assertTrue(all(path[-1] for path, _ in result.leaves()), tap)

    def test_skipped_program(self):
        result = self.result("the kernel is too old\n", guest_selftests.SKIPPED)
        self.assertEqual((result.ok, result.detail), (None, "the kernel is too old"))

    def test_as_good(self):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            for run, line in ("ours", "ok 1 f.a # SKIP x"), ("c", "ok 1 f.a"):
                (directory / run).mkdir()
                (directory / run / "x_test.tap").write_text(f"TAP version 13\n1..1\n{line}\n")
                (directory / run / "x_test.status").write_text("0")
            compared = suites.AsGood("s", after=("ours", "c"))
            self.assertFalse(compared.run(directory / "s", {}, False)[0].ok)
            self.assertTrue(
                suites.AsGood("s", after=("c", "ours")).run(directory / "s", {}, False)[0].ok
            )
            with self.assertRaises(Failure):
                suites.AsGood("s", after=("c", "none")).run(directory / "s", {}, False)


if __name__ == "__main__":
    unittest.main()
