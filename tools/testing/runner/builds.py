# SPDX-License-Identifier: GPL-2.0
"""Builds the driver grafted into kernel trees: `make builds`. Not part of `make check`.

Debian's source and the one before it, with gcc and clang, for amd64 and arm64: the Rust crates and
drivers/vfio of each, configured from tinyconfig and perf.config. A warning fails. A second graft must
change nothing.
"""

import os
import re
import subprocess
from pathlib import Path

from . import CACHE, TESTING, Failure, driver_files, intree, kernel
from .artifact import Steps, artifact, key, recipe, remove
from .results import report

# Name, which source, fragments beside perf.config, variables of make.
BUILDS = (
    ("gcc", "new", [], []),
    ("gcc", "old", [], []),
    ("clang", "new", [], ["LLVM=1"]),
    ("clang", "old", [], ["LLVM=1"]),
    ("clang arm64", "new", [], ["ARCH=arm64", "LLVM=1"]),
    ("gcc built in", "new", ["builtin"], []),
    ("gcc minimal", "new", ["minimal"], []),
)


def earlier_source():
    """Returns the source of the kernel before Debian's newest, from the package linux-source-VERSION."""

    def fetch(new, run):
        [newest] = Path("/usr/src").glob("linux-source-*.tar.xz")
        names = run("", "apt-cache", "search", "--names-only", r"^linux-source-[0-9.]+$").split()
        names = {name for name in names if re.fullmatch(r"linux-source-[\d.]+", name)}
        names = sorted(names, key=lambda name: [int(part) for part in name.removeprefix("linux-source-").split(".")])
        earlier = [name for name in names if not newest.name.startswith(f"{name}.tar")]
        if not earlier:
            raise Failure("looked for a linux-source package beside that of Debian's kernel")
        cached = ["-o", "Dir::Cache=/tmp", "-o", "APT::Sandbox::User=root"]
        run(f"download {earlier[-1]}", "apt-get", "--quiet", "download", *cached, earlier[-1], cwd="/tmp")
        unpack = f"dpkg-deb --fsys-tarfile /tmp/{earlier[-1]}_*.deb | tar -xO --wildcards '*/{earlier[-1]}.tar.xz' | tar -xJ --strip-components=1 -C {new}"
        run("unpack it", "bash", "-o", "pipefail", "-c", unpack)

    return artifact("source-old", [recipe(fetch)], fetch)


def graft(name, pristine, run):
    """Returns a tree with the driver in it. Fails if a second graft changes a file."""
    tree, stamp = CACHE / f"builds/{name}", CACHE / f"builds/{name}.made-of"
    made_of = key([str(pristine), *kernel.patches(), recipe(intree.graft)])
    if not stamp.exists() or stamp.read_text() != made_of:
        remove(tree)
        tree.parent.mkdir(exist_ok=True)
        run(f"copy the {name} source", "cp", "-al", pristine, tree)
        stamp.write_text(made_of)
    intree.graft(tree)
    find = ["find", tree, "-type", "f", "-printf", "%P %s %T@\\n"]
    once = subprocess.check_output(find)
    intree.graft(tree)
    if subprocess.check_output(find) != once:
        raise Failure("make intree has changed files the second time")
    return tree


def build(name, tree, fragments, variables, run):
    """Builds what the driver concerns, unless it was built from the same sources."""
    out = CACHE / "builds" / name.replace(" ", "-")
    is_module = "builtin" not in fragments
    fragments = [TESTING / f"kernels/{fragment}.config" for fragment in ("perf", *fragments)]
    wanted = key([str(tree), *fragments, *driver_files(), *kernel.patches(), *variables])
    stamp = out / "made-of"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    # A file that a patch does not touch any more is older than what was built from it.
    remove(out / "drivers/vfio")
    remove(stamp)
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
    stamp.write_text(wanted)


def results(_=False):
    """Returns (name, ok, detail) for each build."""
    run = Steps("builds")
    trees, found = {}, []
    for age, pristine in ("new", kernel.source), ("old", earlier_source):
        found.append(attempt(f"make intree twice, {age} source", lambda: trees.update({age: graft(age, pristine(), run)})))
    for compiler, age, fragments, variables in BUILDS:
        name = f"{compiler} {age}"
        found.append(attempt(name, lambda: build(name, trees[age], fragments, variables, run)))
    return found


def attempt(name, function):
    """Returns the result of a function that may fail."""
    try:
        function()
    except (Failure, KeyError) as failure:
        return name, False, "\n".join([*getattr(failure, "output", "").splitlines()[-30:], str(failure)])
    return name, True, ""


def add_parser(subparsers):
    parser = subparsers.add_parser("builds", help="build the driver in other kernel trees, by other compilers")
    parser.set_defaults(run=lambda _: report("builds", results()))
