# SPDX-License-Identifier: GPL-2.0
"""Tests of kernel.py that build nothing."""

from . import Failure, artifact, kernel
from .scratch import Scratch


class Working(Scratch):
    def setUp(self):
        super().setUp()
        self.work = self.directory / "work"
        for module in artifact, kernel:
            self.patch(module, CACHE=self.directory)

    def stays_after(self, error):
        """Returns whether the directory of a build that ends with `error` stays."""
        with self.assertRaises(error), kernel.working("perf", self.work):
            self.work.mkdir()
            raise error("the end")
        with kernel.working("perf", self.work):
            return self.work.exists()

    def test_a_failed_build_goes_on(self):
        self.assertTrue(self.stays_after(Failure))

    def test_a_killed_build_starts_again(self):
        self.assertFalse(self.stays_after(KeyboardInterrupt))

    def test_a_warning_removes_what_was_built(self):
        self.work.mkdir()
        kernel.refuse_warnings("no warnings here", self.work)
        with self.assertRaises(Failure):
            kernel.refuse_warnings("a.c:1: warning: unused", self.work)
        self.assertFalse(self.work.exists())


class Architectures(Scratch):
    def test_some_kernels_are_for_one_only(self):
        for arch, name in ("", "64k"), ("arm64", "debian-old"):
            self.patch(kernel, ARCH=arch)
            with self.assertRaisesRegex(Failure, "^the kernel .* is not built for"):
                kernel.kernel(name)
