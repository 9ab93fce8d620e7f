# SPDX-License-Identifier: GPL-2.0
"""The programs that the guests run: those of the workspace, and the kernel's and our selftests."""

import os
import shutil

from . import TESTING, arm64, cargo
from .artifact import artifact, recipe, remove
from .kernel import source


def programs():
    """Returns the directory of the guests' programs, the workspace's binaries."""
    inputs = [TESTING / "Cargo.toml", TESTING / "Cargo.lock", *cargo.members()]
    inputs += arm64.linked_with()

    def build(new, run):
        arguments = ["build", "--release", "--locked", "--bins", cargo.MESSAGES]
        said = cargo.cargo(run, "build the guests' programs", *arguments)
        for program in cargo.programs(said).values():
            shutil.copy(program, new)

    return artifact("programs", [*inputs, recipe(build)], build)


def selftests():
    """Returns the directory of the kernel's vfio selftests, and the driver's in own/."""
    ours, linked_with = TESTING / "selftests/vfio_pci_rs", arm64.linked_with()

    def build(new, run):
        linux, tree, own = source(), new / "tree", new / "own"
        headers = f"KHDR_INCLUDES=-isystem {new}/build/usr/include"
        make_selftests = ["make", f"-j{os.cpu_count()}", headers]
        (new / "build").mkdir()
        own.mkdir()
        install = ["make", "-C", linux, f"O={new}/build", "headers_install"]
        run("install the kernel's headers", *install)
        # The tests take files from the kernel tree around them, some by relative links.
        tree.mkdir()
        run("", "cp", "-al", linux / "tools", tree)
        for path in (path for path in linux.iterdir() if path.name != "tools"):
            (tree / path.name).symlink_to(path)
        run("", "cp", "-r", ours, tree / "tools/testing/selftests")
        there = tree / "tools/testing/selftests"
        for name, output in ("vfio", new), (ours.name, own):
            make_there = [*make_selftests, "-C", there / name, f"OUTPUT={output}"]
            run(f"build the selftests in {name}", *make_there)
        objects = (left for part in (new, own) for left in (part / "libvfio", *part.glob("*.[od]")))
        for left in (new / "build", tree, *objects):
            remove(left)

    return artifact("selftests", [ours, *linked_with, recipe(build)], build)
