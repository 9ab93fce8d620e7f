# SPDX-License-Identifier: GPL-2.0
"""Builds the driver grafted into kernel trees: `make builds`. Not part of `make check`.

Debian's source and the one before it, with gcc and clang, for amd64 and arm64: the Rust crates and
drivers/vfio of each, configured from tinyconfig and perf.config. A warning fails.
"""

import os

from . import CACHE, TESTING, Failure, intree, kernel
from .artifact import Steps, remove
from .results import attempt

# Name, which source, fragments beside perf.config, variables of make.
BUILDS = (
    ("gcc", "new", [], []),
    ("gcc", "old", [], []),
    ("clang", "new", [], ["LLVM=1"]),
    ("clang", "old", [], ["LLVM=1"]),
    ("clang arm64", "new", [], ["ARCH=arm64", "LLVM=1"]),
    ("gcc built in", "new", ["kunit", "builtin"], []),
    ("gcc minimal", "new", ["minimal"], []),
)


def copy(name, age, run):
    """Returns a copy of a source, the tree `name`."""
    pristine, tree = kernel.source(age), CACHE / f"builds/{name}"
    remove(tree)
    tree.parent.mkdir(exist_ok=True)
    run(f"copy the {name} source", "cp", "-al", pristine, tree)
    return tree


def configure(tree, out, fragments, options, variables, run):
    """Configures the build in `out`, with `options` behind the fragments, and prepares it.

    Returns its command make, and the output of the preparation.
    """
    out.mkdir(exist_ok=True)
    (out / "more.config").write_text(options)
    fragments = [TESTING / f"kernels/{fragment}.config" for fragment in ("perf", *fragments)]
    tiny = [file for file in kernel.TINY if "ARCH=arm64" not in variables or "x86" not in file]
    environment = os.environ | dict(variable.split("=") for variable in variables)
    merge = ["scripts/kconfig/merge_config.sh", "-n", "-O", out, *tiny, *fragments]
    run("", *merge, out / "more.config", cwd=tree, env=environment)
    command = ["make", "-C", tree, f"O={out}", f"-j{os.cpu_count()}", "LOCALVERSION=", *variables]
    return command, run(f"prepare {out.name}", *command, "prepare", "modules_prepare")


def build(name, age, fragments, variables, run):
    """Builds drivers/vfio again, and what it needs if that is missing."""
    out = CACHE / "builds" / name.replace(" ", "-")
    options = "" if "builtin" in fragments else "CONFIG_VFIO_PCI_RS=m\n"
    remove(out / "drivers/vfio")
    command, said = configure(CACHE / "builds" / age, out, fragments, options, variables, run)
    if "CONFIG_VFIO_PCI_RS" not in kernel.options(out / ".config"):
        raise Failure("the driver is not in the configuration")
    said += run(f"build {name}", *command, "drivers/vfio/")
    kernel.refuse_warnings(said, out / "drivers/vfio")


def results():
    run, found = Steps("builds"), []
    for age in "new", "old":
        found.append(attempt(f"make intree, {age}", lambda: intree.graft(copy(age, age, run))))
    for compiler, age, fragments, variables in BUILDS:
        name = f"{compiler} {age}"
        found.append(attempt(name, lambda: build(name, age, fragments, variables, run)))
    return found
