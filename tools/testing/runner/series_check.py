# SPDX-License-Identifier: GPL-2.0
"""Checks the patch series as its reviewers would: `make series-check`. Not part of `make check`.

git am applies the series to Debian's source and to the one before it, and the fixes for stable
kernels to that of Debian's stable kernel. After each patch, kbuild compiles drivers/vfio with W=1
and sparse. The whole series goes through the kernel's checkers of documentation, Kconfig and
MAINTAINERS, and through `make lint`. A warning fails if the tree has it only with the series.
"""

import os
import re

from . import (
    CACHE, Failure, builds, intree, kernel, layers, lint, modules, programs, series,
)  # fmt: skip
from .artifact import Steps, remove, say
from .results import Result, attempt

SENDER = "checked", "checked@localhost"
PROGRAMS = ("sparse", "python3-sphinx", "python3-yaml")
# The kernels, and how many patches of the series each gets.
TREES = {"stable": modules.FIXES, "old": None, "new": None}
OURS = re.compile("vfio[-_]pci[-_]rs|vfio/pci/rust|VFIO RUST")


def warnings(output):
    """Returns the warnings in the output of a tool, without line numbers."""
    lines = (line for line in output.splitlines() if re.search(r"\b(warning|error)\b", line, re.I))
    return {re.sub(r":\d+(:\d+)?\b", "", line).strip() for line in lines}


def refuse(lines):
    if lines:
        raise Failure(f"{len(lines)} warnings are new", "\n".join(sorted(lines)))


class Tree:
    """A kernel tree that gets the patches, one by one, and a build of it."""

    def __init__(self, age):
        name = f"series-{age}"
        self.run = Steps(name)
        self.path = builds.copy(name, age, self.run)
        self.version = ".".join(kernel.versions(self.path))
        # checkkconfigsymbols.py looks for definitions in the files that git knows.
        kconfig = [":(glob)**/Kconfig*"]
        self.git = series.Repository(self.path, SENDER, kconfig).git
        self.out = CACHE / f"builds/{name}-build"
        remove(self.out / "drivers/vfio")
        self.known = warnings(self.configure() + self.compile() + self.kernel_doc())

    def tool(self, *command, **variables):
        """Runs a program on the tree, and returns its output."""
        layer, environment = layers.layer("checkers", PROGRAMS), os.environ | variables
        return self.run("", *layers.above(layer, *command), cwd=self.path, env=environment)

    def configure(self):
        """Configures the build, and returns the output.

        It is without Rust until there is a driver: the crates take minutes.
        """
        has_driver = (self.path / intree.TARGET / "Kconfig").exists()
        options = "CONFIG_VFIO_PCI_IGD=y\n"
        options += "CONFIG_VFIO_PCI_RS=m\n" if has_driver else "# CONFIG_RUST is not set\n"
        self.make, said = builds.configure(self.path, self.out, (), options, (), self.run)
        return said

    def compile(self):
        return self.tool(*self.make, "W=1", "C=1", "drivers/vfio/")

    def apply(self, patch):
        """Applies a patch and compiles the files that depend on it."""
        say(f"  {self.version}: {patch.name} ...")
        self.git("am", "--quiet", patch)
        is_new = "Kconfig" in self.git("diff", "--name-only", "HEAD~")
        said = self.configure() if is_new else ""
        refuse(warnings(said + self.compile()) - self.known)

    def kernel_doc(self):
        sources = [name for name in series.changed() if re.match(r".*vfio.*\.[ch]$", name)]
        return self.tool("scripts/kernel-doc", "-none", "-Wall", *sorted(sources))


def kernel_doc(tree):
    """kernel-doc finds no fault in the files of the patches."""
    refuse(warnings(tree.kernel_doc()) - tree.known)


def htmldocs(tree):
    """Sphinx reads the documentation."""
    folder = intree.DOCUMENTATION.removeprefix("Documentation/")
    remove(tree.out / "html")
    said = tree.tool("make", "htmldocs", f"SPHINXDIRS={folder}", f"BUILDDIR={tree.out}/html")
    if not list((tree.out / "html").rglob("design.html")):
        raise Failure("Sphinx has written no design.html", said)
    refuse([line for line in warnings(said) if OURS.search(line)])


def abi(tree):
    """get_abi.py reads the files in Documentation/ABI."""
    said = tree.tool("tools/docs/get_abi.py", "-D", "Documentation/ABI", "validate")
    refuse([line for line in said.splitlines() if OURS.search(line)])


def maintainers(tree):
    """get_maintainer.pl finds no fault in the entry of MAINTAINERS."""
    said = tree.tool("scripts/get_maintainer.pl", "--self-test=sections,patterns")
    refuse([line for line in said.splitlines() if OURS.search(line)])
    found = tree.tool("scripts/get_maintainer.pl", "--nogit", "-f", f"{intree.TARGET}/reset.rs")
    if SENDER[1] not in found:
        raise Failure("get_maintainer.pl does not find the maintainer", found)


def rustdoc(tree):
    """rustdoc reads the driver, private items included."""
    saved = tree.out / f"{intree.TARGET}/.vfio_pci_rs.o.cmd"
    if not saved.exists():
        raise Failure("the driver has not been compiled")
    text = saved.read_text().replace("$$", "$")
    command = re.search(r":= (.*? \S+\.rs)(?: |$)", text, re.MULTILINE)[1]
    command = re.sub(r" --(?:emit=|out-dir )\S+", "", command)
    options = f"--document-private-items -Dwarnings --out-dir={tree.out}/rustdoc"
    # kbuild exports the second to the compiler.
    variables = "RUSTC_BOOTSTRAP=1", f"VFIO_PCI_RS_OBJ={tree.out / intree.TARGET}"
    tree.tool("env", "-C", tree.out, *variables, "sh", "-c",
              command.replace(" rustc ", f" rustdoc {options} ", 1))  # fmt: skip


def kconfig(tree):
    """checkkconfigsymbols.py knows all symbols that the series uses, and the driver is enabled."""
    if kernel.options(tree.out / ".config").get("CONFIG_VFIO_PCI_RS") != "m":
        raise Failure("the driver is not in the configuration")
    # It moves HEAD.
    tree.git("tag", "--force", "complete")
    said = tree.tool("scripts/checkkconfigsymbols.py", "--no-color", "--diff", "base..complete")
    refuse(said.splitlines())


CHECKERS = kernel_doc, htmldocs, abi, maintainers, rustdoc, kconfig


def on_tree(age, patches):
    """Returns the Result of the series on a tree, up to the first patch that fails."""
    tree, found = Tree(age), []
    for patch in patches[: TREES[age]]:
        found.append(attempt(patch.name, lambda: tree.apply(patch)))
        if not found[-1].ok:
            break
    if age == "new":
        found += [attempt(check.__doc__, lambda: check(tree)) for check in CHECKERS]
    return Result(f"Linux {tree.version}", True, "", found)


def results():
    out = CACHE / "results/series"
    out.mkdir(parents=True, exist_ok=True)
    patches = series.write(out, SENDER)
    found = [on_tree(age, patches) for age in TREES]
    return [*found, attempt("the selftests compile", programs.selftests), *lint.results()]
