# SPDX-License-Identifier: GPL-2.0
"""Checks of the source: `make lint`. One that passed runs again only when its inputs change."""

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

from . import CACHE, IN_ROOT, REPO, TESTING, Failure, docs, driver, driver_files, modules, patches
from . import prose, series
from .artifact import Steps, files_of, once, recipe
from .cargo import cargo, members
from .results import Result, attempt

AT_ONCE = 2
CHECKS = []
PREPARED = "the Debian root"


def check(name, *inputs, needs=()):
    """Registers run(steps) as a check, which fails, or yields lines that name each fault."""

    def register(run):
        def fail():
            found = list(run(Steps("lint-" + re.sub(r"\W+", "-", name))) or ())
            if found:
                raise Failure(found.pop(), "\n".join(found))

        def result():
            for need in needs:
                if not (IN_ROOT if need == PREPARED else shutil.which(need)):
                    return Result(name, None, f"needs {need}")
            return attempt(name, lambda: once(f"lint {name}", [*inputs, recipe(run)], fail))

        CHECKS.append(result)
        return run

    return register


DEFECTS, PYTHON, SELFTESTS = TESTING / "defects", TESTING / "runner", TESTING / "selftests"
MACHINE = TESTING / "machine"
DRIVER = [*driver_files(), *patches()]
SERIES = [*DRIVER, SELFTESTS, series.PARTS, REPO / "Documentation"]
CRATES = [TESTING / "Cargo.toml", TESTING / "Cargo.lock", *members()]
SCRIPTS = [REPO / ".ci/run", *TESTING.glob("guest-*"), TESTING / "machine/ended"]
SCRIPTS += [path for path in (REPO / "tools").iterdir() if path.is_file()]
PACKAGE = REPO / "tools/package"
SCRIPTS += [PACKAGE / "build", PACKAGE / "changed", PACKAGE / "debian/tests/smoke"]
SCRIPTS += PACKAGE.glob("debian/*.p*")
C_FOLDERS = REPO / "bindings", TESTING / "helper-module", SELFTESTS


# The slow ones come first.
@check("clippy: the driver", *DRIVER, needs=(PREPARED,))
def clippy_driver(run):
    modules.clippy(run)


@check("patch series: git am, the graft, checkpatch", *SERIES, needs=(PREPARED,))
def patch_series(_):
    out = CACHE / "results/series"
    out.mkdir(parents=True, exist_ok=True)
    series.write(out, ("lint", "lint@localhost"))


@check("clippy: the tests", *CRATES, *DRIVER, needs=("cargo-clippy",))
def clippy_tests(run):
    clippy, deny = ["clippy", "--quiet", "--all-targets", "--locked"], ["--", "--deny", "warnings"]
    cargo(run, "", *clippy, *deny, target="target-lint")
    for target, flags in ("target-models", "--cfg loom"), ("target-shuttle", "--cfg shuttle"):
        cargo(run, "", *clippy, "--package=reflck", *deny, target=target, RUSTFLAGS=flags)


@check("ops table: the data path is C", *DRIVER, needs=(PREPARED,))
def data_path_is_c(run):
    # These come to vfio-pci-core without a Rust frame.
    relocations = run("", "objdump", "--reloc", modules.clippy(run))
    for function in "read write mmap ioctl ioctl_feature request match match_token_uuid".split():
        if f"vfio_pci_core_{function}\n" not in relocations:
            yield f"no table in the module has vfio_pci_core_{function}"


@check("rustfmt: the driver", *driver_files(), needs=("rustfmt",))
def rustfmt_driver(run):
    run("", "rustfmt", "--edition", "2021", "--check", REPO / "vfio_pci_rs.rs")


@check("rustfmt: the tests", *members(), needs=("cargo-fmt",))
def rustfmt_tests(run):
    cargo(run, "", "fmt", "--all", "--check")


@check("checkpatch: C files", *C_FOLDERS, needs=(PREPARED,))
def checkpatch(_):
    files = (file for folder in C_FOLDERS for file in files_of(folder))
    sources = (file for file in files if file.suffix in (".c", ".h"))
    series.checkpatch(["--no-signoff", "--file", *sources])


@check("defects apply to the driver", *driver_files(), DEFECTS, needs=("patch",))
def defects_apply(run):
    for defect in sorted(DEFECTS.glob("*.patch")):
        with tempfile.TemporaryDirectory() as copy:
            modules.copy_of(driver_files())(copy, run)
            modules.apply(copy, [defect], run)


@check("shellcheck", *SCRIPTS, needs=("shellcheck",))
def shellcheck(run):
    run("", "shellcheck", "--external-sources", "--severity=warning", *SCRIPTS, cwd=REPO)


@check("pyflakes", PYTHON, PACKAGE, MACHINE, needs=("pyflakes3",))
def pyflakes(run):
    run("", "pyflakes3", *PYTHON.glob("*.py"), *MACHINE.glob("*.py"), PACKAGE / "doctor")


def text_check(name, rule, *inputs):
    check(name, *inputs, PYTHON / "driver.py")(lambda _: rule())


text_check("no unsafe in the driver proper", driver.unsafe_outside, *driver_files())
text_check(f"no file of the driver has over {driver.LONGEST} lines", driver.too_long, *DRIVER)
text_check("no circle of imports in the driver", driver.circles, *driver_files())
text_check("SPDX lines", driver.unlicensed, REPO)


def results():
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [*pool.map(lambda result: result(), CHECKS), *prose.results(), *docs.results()]
