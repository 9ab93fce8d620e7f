# SPDX-License-Identifier: GPL-2.0
"""Checks of the source: `make lint`. One that passed runs again only when its inputs have changed."""

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from . import CACHE, IN_ROOT, REPO, TESTING, Failure, docs, driver, driver_files, kernel, prose, series
from .artifact import Steps, files_of, once, recipe
from .cargo import cargo, members
from .results import report

AT_ONCE = 2
CHECKS = []
PREPARED = "the Debian root"


@dataclass
class Check:
    """A check: run(steps) fails, or returns or yields lines that say what is wrong."""

    name: str
    inputs: list
    needs: tuple
    run: object

    def result(self):
        """Returns (name, ok, detail); ok is None if the machine lacks what the check needs."""
        lacking = [need for need in self.needs if not (IN_ROOT if need == PREPARED else shutil.which(need))]
        if lacking:
            return self.name, None, f"needs {lacking[0]}"
        try:
            once(f"lint {self.name}", [*self.inputs, recipe(self.run)], self.attempt)
        except Failure as failure:
            return self.name, False, "\n".join([*failure.end_of_output(), str(failure)])
        return self.name, True, ""

    def attempt(self):
        """Fails if the check does."""
        wrong = list(self.run(Steps("lint-" + re.sub(r"\W+", "-", self.name))) or ())
        if wrong:
            raise Failure(wrong.pop(), "\n".join(wrong))


def check(name, *inputs, needs=()):
    """Registers a function as the check `name`."""

    def register(run):
        CHECKS.append(Check(name, inputs, needs, run))
        return run

    return register


DRIVER = [*driver_files(), *kernel.patches()]
SCRIPTS = [REPO / ".ci/run", TESTING / "guest-init", *(path for path in (REPO / "tools").iterdir() if path.is_file())]
DEFECTS = TESTING / "defects"
PYTHON = TESTING / "runner"
SELFTESTS = TESTING / "selftests"


# The slow ones come first.
@check("clippy: the driver", *DRIVER, needs=(PREPARED,))
def clippy_driver(run):
    kernel.clippy(run)


@check("patch series: git am, the same as the graft, checkpatch", *DRIVER, SELFTESTS, series.PARTS, needs=(PREPARED,))
def patch_series(_):
    out = CACHE / "results/series"
    out.mkdir(parents=True, exist_ok=True)
    series.write(out, ("lint", "lint@localhost"))


@check("clippy: the tests", TESTING / "Cargo.toml", TESTING / "Cargo.lock", *members(), *DRIVER, needs=("cargo-clippy",))
def clippy_tests(run):
    clippy = ["clippy", "--quiet", "--all-targets", "--locked"]
    cargo(run, "", *clippy, "--", "--deny", "warnings", target="target-lint")
    cargo(run, "", *clippy, "--package=reflck", "--", "--deny", "warnings", target="target-models", RUSTFLAGS="--cfg loom")


@check("ops table: the data path is C", *DRIVER, needs=(PREPARED,))
def data_path_is_c(run):
    # Read, write, mmap and ioctl come to vfio-pci-core without a Rust frame.
    relocations = run("", "objdump", "--reloc", kernel.clippy(run))
    for function in "read", "write", "mmap", "ioctl":
        if f"vfio_pci_core_{function}\n" not in relocations:
            yield f"no table in the module has vfio_pci_core_{function}"


@check("rustfmt: the driver", *driver_files(), needs=("rustfmt",))
def rustfmt_driver(run):
    run("", "rustfmt", "--edition", "2021", "--check", REPO / "vfio_pci_rs.rs")


@check("rustfmt: the tests", *members(), needs=("cargo-fmt",))
def rustfmt_tests(run):
    cargo(run, "", "fmt", "--all", "--check")


@check("checkpatch: C files", REPO / "bindings", TESTING / "helper-module", SELFTESTS, needs=(PREPARED,))
def checkpatch(_):
    folders = REPO / "bindings", TESTING / "helper-module", SELFTESTS
    series.checkpatch(["--no-signoff", "--file", *(file for path in folders for file in files_of(path) if file.suffix in (".c", ".h"))])


@check("defects apply to the driver", *driver_files(), DEFECTS, needs=("patch",))
def defects_apply(run):
    for defect in sorted(DEFECTS.glob("*.patch")):
        with tempfile.TemporaryDirectory() as copy:
            kernel.copy_of(driver_files())(copy, run)
            kernel.apply(copy, [defect], run)


@check("shellcheck", *SCRIPTS, needs=("shellcheck",))
def shellcheck(run):
    scripts = [script for script in SCRIPTS if script.read_text().startswith(("#!/bin/bash", "# shellcheck"))]
    run("", "shellcheck", "--external-sources", "--severity=warning", *scripts, cwd=REPO)


@check("pyflakes", PYTHON, needs=("pyflakes3",))
def pyflakes(run):
    run("", "pyflakes3", *PYTHON.glob("*.py"))


def text_check(name, rule, *inputs):
    """Registers a rule about the text of files."""
    CHECKS.append(Check(name, [*inputs, PYTHON / "driver.py"], (), lambda _: rule()))


text_check("no unsafe in the driver proper", driver.unsafe_outside, *driver_files())
text_check(f"no file of the driver has more than {driver.LONGEST} lines", driver.too_long, *driver_files())
text_check("no circle of imports in the driver", driver.circles, *driver_files())
text_check("SPDX lines", driver.unlicensed, REPO)


def results(_=False):
    """Returns (name, ok, detail) for every check."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(Check.result, CHECKS))
    return found + prose.results() + docs.results()


def add_parser(subparsers):
    subparsers.add_parser("lint", help="check the source").set_defaults(run=lambda _: report("lint", results()))
