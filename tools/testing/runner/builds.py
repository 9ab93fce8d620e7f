# SPDX-License-Identifier: GPL-2.0
"""Builds the driver grafted into kernel trees: `make builds`. Not part of `make check`.

Debian's source and the one before it, with gcc and clang, for amd64 and arm64: the Rust crates and
drivers/vfio of each, configured from tinyconfig and perf.config. A warning fails.
"""

import os
import re
from pathlib import Path

from . import CACHE, TESTING, Failure, intree, kernel
from .artifact import Steps, artifact, recipe, remove
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


def earlier_source():
    """Returns the source of the kernel before Debian's newest, from its package."""

    def fetch(new, run):
        [newest] = Path("/usr/src").glob("linux-source-*.tar.xz")
        said = run("", "apt-cache", "search", "--names-only", r"^linux-source-[0-9.]+$")
        names = re.findall(r"^linux-source-[\d.]+", said, re.MULTILINE)
        names = [name for name in names if not newest.name.startswith(f"{name}.tar")]
        if not names:
            raise Failure("looked for a linux-source package beside that of Debian's kernel")
        earlier = max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
        options = ["--quiet", "-o", "Dir::Cache=/tmp", "-o", "APT::Sandbox::User=root"]
        run(f"download {earlier}", "apt-get", *options, "download", earlier, cwd="/tmp")
        unpack = """set -o pipefail; dpkg-deb --fsys-tarfile /tmp/$0_*.deb |
            tar -xO --wildcards "*/$0.tar.xz" | tar -xJ --strip-components=1 -C $1"""
        run("unpack it", "bash", "-c", unpack, earlier, new)

    return artifact("source-old", [recipe(fetch)], fetch)


def graft(name, pristine, run):
    """Puts the driver into a copy of a pristine tree."""
    tree = CACHE / f"builds/{name}"
    remove(tree)
    tree.parent.mkdir(exist_ok=True)
    run(f"copy the {name} source", "cp", "-al", pristine, tree)
    intree.graft(tree)


def build(name, age, fragments, variables, run):
    """Builds drivers/vfio again, and what it needs if that is missing."""
    tree, out = CACHE / "builds" / age, CACHE / "builds" / name.replace(" ", "-")
    is_module = "builtin" not in fragments
    fragments = [TESTING / f"kernels/{fragment}.config" for fragment in ("perf", *fragments)]
    remove(out / "drivers/vfio")
    out.mkdir(exist_ok=True)
    if is_module:
        fragments.append(out / "driver.config")
        fragments[-1].write_text("CONFIG_VFIO_PCI_RS=m\n")
    tiny = [file for file in kernel.TINY if "ARCH=arm64" not in variables or "x86" not in file]
    environment = os.environ | dict(variable.split("=") for variable in variables)
    merge = ["scripts/kconfig/merge_config.sh", "-n", "-O", out, *tiny, *fragments]
    run("", *merge, cwd=tree, env=environment)
    if "CONFIG_VFIO_PCI_RS" not in kernel.options(out / ".config"):
        raise Failure("the driver is not in the configuration")
    command = ["make", f"O={out}", f"-j{os.cpu_count()}", *variables]
    output = run(f"build {name}", *command, "prepare", "modules_prepare", cwd=tree)
    output += run("", *command, "drivers/vfio/", cwd=tree)
    kernel.refuse_warnings(output, out / "drivers/vfio")


def results():
    run, found = Steps("builds"), []
    for age, pristine in ("new", kernel.source), ("old", earlier_source):
        found.append(attempt(f"make intree, {age}", lambda: graft(age, pristine(), run)))
    for compiler, age, fragments, variables in BUILDS:
        name = f"{compiler} {age}"
        found.append(attempt(name, lambda: build(name, age, fragments, variables, run)))
    return found
