# SPDX-License-Identifier: GPL-2.0
"""Tests of suites and kinds: the table, and what counts as a selftest's result."""

import re
import shlex
import unittest

from . import Failure, guest_selftests, kernel, kinds, suites, topology, vm
from .results import Result
from .scratch import Scratch, needs_parser


EVERY = suites.SUITES + suites.ON_DEMAND


class Table(unittest.TestCase):
    def test_names(self):
        names = [suite.name for suite in EVERY]
        self.assertEqual(len(names), len(set(names)))
        for table in suites.SUITES, EVERY:
            names = {suite.name for suite in table}
            self.assertTrue(all(names.issuperset(suite.after) for suite in table))

    def test_guests(self):
        for guest in (suite for suite in EVERY if isinstance(suite, kinds.Guest)):
            self.assertIn(guest.kernel, kernel.KERNELS)
            self.assertTrue(topology.load(guest.topology).paths)
            for form in guest, guest.longer():
                self.assertTrue(shlex.split(form.command), guest.name)
            # A suite on C does not depend on the driver.
            if re.search(r"\bvfio-pci\b(?!-)", guest.command):
                self.assertIn(guest.modules, ("stock", "fixed", "core"), guest.name)

    def test_long_form(self):
        forms = {"command": "{programs}/x --few", "long": "{programs}/x"}
        guest = kinds.Guest("g", arguments=("kmemleak=off",), **forms)
        self.assertEqual(guest.longer().command, guest.long)
        self.assertEqual(guest.longer().arguments, ())
        self.assertEqual(guest.needs(), (("programs",), ("modules", "debian", "rs")))
        models = next(suite for suite in suites.SUITES if suite.name == "models")
        self.assertNotEqual(models.inputs({}), models.longer().inputs({}))

    def test_by_name(self):
        self.assertEqual(suites.by_name("noiommu", None, "vfio_pci_rs").topology, "noiommu")
        one = suites.by_name("vfio_pci_device_test.x", None, "vfio-pci")
        self.assertEqual((one.topology, one.kernel, one.modules), ("selftests", "perf", "core"))
        self.assertTrue(one.command.endswith("vfio-pci {selftests} vfio_pci_device_test.x"))
        tools = suites.by_name("dpdk+qemu-beside", None, "vfio_pci_rs")
        self.assertEqual(tools.command, "python3 -m machine beside dpdk qemu")
        self.assertEqual(suites.by_name("noiommu", "debug", "vfio_pci_rs").kernel, "debug")
        for name in "unit", "dpdk-c", "builtin", "bench-bus":
            with self.assertRaises(Failure):
                suites.by_name(name, "debug", "vfio_pci_rs")
        program, tests = next(iter(suites.own_selftests().items()))
        own = suites.by_name(tests[0], "debug", "vfio_pci_rs")
        self.assertEqual((own.topology, own.kernel, own.modules), ("scenarios", "debug", "rs"))
        self.assertTrue(own.command.endswith(f"{program}.{tests[0]}"))


class Guests(unittest.TestCase):
    def test_environment(self):
        topology = {"flr.port": "0", "flr.0": "1", "flr.1": "2", "igb.pf": "3"}
        variables = guest_selftests.environment("vfio-pci", topology)
        found = [variables[f"VFIO_PCI_RS_{name}"] for name in ("FLR", "PF", "BUS")]
        self.assertEqual(found, ["1 2", "3", ""])

    def test_kernel_log(self):
        clean = vm.Outcome(status=1)
        self.assertTrue(kinds.kernel_log(clean, [Result("a", False)]).ok)
        # No test failed, so something else did.
        self.assertFalse(kinds.kernel_log(clean, [Result("a", True)]).ok)
        self.assertFalse(kinds.kernel_log(vm.Outcome(status=0, splats=["BUG: x"]), []).ok)
        self.assertFalse(kinds.kernel_log(vm.Outcome(reason="the time limit"), []).ok)


@needs_parser
class Selftests(Scratch):
    def result(self, tap, status, name="x_test"):
        path = self.write(f"{name}.tap", tap)
        if status is not None:
            self.write(f"{name}.status", f"{status}\n")
        return kinds.selftest(path)

    def test_outcomes(self):
        tap = "TAP version 13\n1..2\n# Starting 2 tests\nok 1 f.a\nok 2 f.b # SKIP no device\n"
        result = self.result(tap, 0)
        self.assertTrue(result.passed())
        self.assertEqual([leaf.ok for _, leaf in result.leaves()], [True, None])
        self.assertFalse(self.result(tap.replace("ok 1", "not ok 1"), 1).passed())

    def test_incomplete(self):
        for tap, status in (
            ("TAP version 13\n1..1\nok 1 f.a\n", None),
            ("TAP version 13\n1..9\nok 1 f.a\n#  RUN f.b\n", 0),
            ("TAP version 13\n1..1\nok 1 f.a\n", 1),
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
        for run, line in ("ours", "ok 1 f.a # SKIP x"), ("c", "ok 1 f.a"):
            self.result(f"TAP version 13\n1..2\n{line}\nok 2 f.b\n", 0, f"{run}/x_test")

        def passed(*after):
            [result] = kinds.AsGood("s", after=after).run(self.directory / "s", {})
            return result.ok

        self.assertFalse(passed("ours", "c"))
        self.assertTrue(passed("c", "ours"))
        with self.assertRaises(Failure):
            passed("c", "none")
