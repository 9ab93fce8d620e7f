# SPDX-License-Identifier: GPL-2.0
"""Sets of modules for the kernels, and the kernel that has the driver in its image.

Modules are external: a copy of parts of drivers/vfio, patched, and the driver, laid over the
kernel's own.
"""

import shutil
import tempfile
from pathlib import Path

from . import CACHE, TESTING, Failure, driver_files, intree, patches
from .artifact import artifact, key, recipe, remove
from .kernel import (
    DEBIAN, WORK, build_kernel, compiler, configure, kernel, make, refuse_warnings, source, wanted,
    working,
)  # fmt: skip

HELPER = TESTING / "helper-module"
COVERAGE = TESTING / "coverage-module"
# The files that kbuild and bindgen read; what they generate among them stays.
SOURCES = ["--exclude=*.mod.c", "--exclude=*generated*", "--exclude=.*", "--include=*/"]
SOURCES += ["--include=*.rs", "--include=*.[chS]", "--include=Makefile", "--include=Kconfig"]
SOURCES += ["--include=*Kbuild", "--include=*_parameters"]
# So many patches, the first, are fixes for stable kernels.
FIXES = 2
# The parts with drivers/vfio, and their patches; the sets of modules, and the part each needs.
CORES = {"core": patches, "fixed": lambda: patches()[:FIXES], "core-coverage": patches}
SETS = {"stock": None, "fixed": "fixed", "core": "core", "rs": "core", "in-place": "core"}
SETS["coverage"] = "core-coverage"
# The Kbuild of drivers/vfio.
CORE = "obj-$(CONFIG_VFIO_IOMMU_TYPE1) += vfio_iommu_type1.o\nobj-$(CONFIG_VFIO_PCI_CORE) += pci/\n"
# As scripts/Makefile.kcov has it, and blocks that always run with another one are not left out.
SANCOV = ["-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=3"]
SANCOV += ["-Cllvm-args=-sanitizer-coverage-prune-blocks=0"]
SANCOV += ["-Cllvm-args=-sanitizer-coverage-trace-pc", "-Cdebuginfo=2"]
# The sets with the driver, and the variables of make that it is built with.
OURS = {"rs": [], "in-place": ["VFIO_PCI_RS_IN_PLACE=y"]}
RECORDED = ["KCFLAGS=-fsanitize-coverage=trace-pc -g", f"KRUSTFLAGS={' '.join(SANCOV)}"]
OURS["coverage"] = RECORDED


def builtin():
    """Returns a directory with lib/modules/VERSION of the kernel builtin."""
    fragments, asked = wanted("builtin")
    inputs = [asked, *driver_files(), *patches(), HELPER]
    inputs.append(recipe(intree.graft, build_builtin, configure))

    def build_again(new, run):
        with working("builtin", CACHE / "work-builtin"):
            build_builtin(new, run, fragments)

    return artifact("kernel-builtin", inputs, build_again)


def build_builtin(new, run, fragments):
    """Builds perf's kernel again with the driver in the image, from a copy of perf's objects.

    The copy and the grafted source stay until perf or the patches change.
    """
    perf, work = kernel("perf"), CACHE / "work-builtin"
    made_of = key([perf.name, *patches(), recipe(intree.graft)])
    linux, build, stamp = work / "linux", work / "build", work / "made-of"
    if not stamp.exists() or stamp.read_text() != made_of:
        remove(work)
        work.mkdir()
        run("copy the source", "cp", "-al", source(), linux)
        run("copy perf's objects", "cp", "-a", "--reflink=auto", perf / "build", build)
        stamp.write_text(made_of)
    intree.graft(linux)
    configure(run, build, fragments, linux=linux)
    try:
        build_kernel(run, "builtin", build, new, linux)
        external(run, build, work, "helper", copy_of(HELPER.iterdir()), [], linux=linux)
    except Failure:
        # It would not warn again.
        remove(stamp)
        raise
    lay_over(run, new, [work / "helper"])


def copy_of(paths):
    """Returns a function that copies `paths` to a directory."""
    return lambda directory, run: run("", "cp", "-r", *paths, directory)


def patched_core(files, linux):
    """Returns a function that copies the parts of a source that `files`, patches, change."""

    def stage(directory, run):
        vfio = directory / "drivers/vfio"
        (directory / "include/linux").mkdir(parents=True)
        for header in "vfio.h", "vfio_pci_core.h":
            shutil.copy(linux / "include/linux" / header, directory / "include/linux")
        shutil.copytree(linux / "drivers/vfio/pci", vfio / "pci")
        for file in "vfio.h", "vfio_iommu_type1.c":
            shutil.copy(linux / "drivers/vfio" / file, vfio)
        apply(directory, files, run)
        (vfio / "Kbuild").write_text(CORE)

    return stage


def apply(directory, files, run):
    for patch in files:
        strict = ["--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-"]
        run("", "patch", "-d", directory, "-p1", "--forward", *strict, "-i", patch)


def external(run, build, work, part, stage, arguments, module="", what="", linux=None):
    """Builds external modules in `work`/`part`, whose files stage(directory, run) provides.

    Files that are as they were keep their time stamps, so kbuild builds the rest only.
    """
    with tempfile.TemporaryDirectory() as staged:
        stage(Path(staged), run)
        (work / part).mkdir(parents=True, exist_ok=True)
        keep = ["--recursive", "--checksum", "--delete", "--prune-empty-dirs",
                "--perms", "--chmod=D755,F644"]  # fmt: skip
        run("", "rsync", *keep, *SOURCES, "--exclude=*", f"{staged}/", f"{work / part}/")
    # BTF would need a vmlinux that Debian does not package; kbuild warns if it is to be made.
    where = [f"M={WORK / part / module}", "CONFIG_DEBUG_INFO_BTF_MODULES="]
    output = make(run, what, build, *where, *arguments, "modules",
                  linux=linux, work=work, writable=False)  # fmt: skip
    refuse_warnings(output, work / part)


class Parts:
    """The external modules for one kernel. Owns the directories that they are built in, one a part.

    They lie in the kernel's own directory, and go with it. The lock `name` must be held.
    """

    def __init__(self, name, run):
        self.name, self.run, self.own = name, run, kernel(name)
        self.work, self.linux = self.own / "work", source(DEBIAN.get(name, "new"))
        self.built, self.symbols = [], []

    def add(self, part, inputs, stage, *arguments, module="", what=""):
        """Builds a part, unless its inputs and those of the earlier parts are as the last time."""
        wanted = key([*self.built, part, *inputs, *arguments, recipe(external, make)])
        stamp = self.work / f"{part}.built"
        if not stamp.exists() or stamp.read_text() != wanted:
            remove(stamp)
            arguments = [*compiler(self.name), *arguments]
            external(self.run, self.own / "build", self.work, part, stage, arguments, module, what,
                     self.linux)  # fmt: skip
            stamp.write_text(wanted)
        self.built.append(part + wanted)
        return self.work / part

    def helper(self):
        return self.add("helper", [HELPER], copy_of(HELPER.iterdir()),
                        what="build the tests' helper module")  # fmt: skip

    def sancov(self):
        """Builds the module that those of the set `coverage` call."""
        self.symbols.append("sancov")
        return self.add("sancov", [COVERAGE], copy_of(COVERAGE.iterdir()))

    def linked(self):
        """Returns a variable of make: the symbols of the parts so far that a part links to."""
        files = (f"{WORK}/{part}/Module.symvers" for part in self.symbols)
        return f"KBUILD_EXTRA_SYMBOLS={' '.join(files)}"

    def core(self, part="core"):
        """Builds vfio-pci-core and type1 with the patches of a set."""
        files = CORES[part]()
        self.headers = f"NOSTDINC_FLAGS=-nostdinc -I{WORK}/{part}/include"
        inputs = [*files, CORE, recipe(patched_core)]
        variables = [self.linked(), *RECORDED] if self.symbols else []
        self.symbols.append(f"{part}/drivers/vfio")
        return self.add(part, inputs, patched_core(files, self.linux), self.headers, *variables,
                        module="drivers/vfio",
                        what=f"build drivers/vfio ({part})")  # fmt: skip

    def driver(self, defects=(), part="rs", variables=()):
        """Builds the driver, with `defects` in it. The parts before it must be the core."""
        files = driver_files()
        changes = [TESTING / f"defects/{defect}.patch" for defect in defects]

        def stage(directory, run):
            copy_of(files)(directory, run)
            apply(directory, changes, run)

        arguments = [self.headers, "CONFIG_VFIO_PCI_RS=m", self.linked(), *variables]
        return self.add(part, [*files, *changes], stage, *arguments,
                        what=f"build the driver ({part})")  # fmt: skip


def lay_over(run, new, parts):
    """Puts the modules of `parts` into updates/, which modprobe prefers, of the kernel in `new`."""
    [installed] = (new / "lib/modules").iterdir()
    (installed / "updates").mkdir()
    for module in (module for part in parts for module in part.rglob("*.ko")):
        shutil.copy(module, installed / "updates")
    # depmod writes new files and renames them: those that other sets link to stay.
    run("", "depmod", "--all", "--basedir", new, installed.name)


def modules(name, modset):
    """Returns lib/modules/VERSION with a set of modules for the kernel `name`; never changes later.

    A guest sees it if its parent is bound over /usr/lib/modules. Sets: `stock` is the kernel's own
    modules, `fixed` has vfio-pci and its core with the patches for stable kernels, `core` with all
    patches, `rs` the driver too, and `rs+DEFECT` the driver with defects/DEFECT.patch. `in-place`
    has the driver as the module vfio-pci. `coverage` has the driver and the core as modules that
    record which of their code has run. All have the helper module of the tests.
    """
    base, *defects = modset.split("+")
    is_set = base == "rs" or (base in SETS and not defects)
    if not is_set or (name == "builtin" and modset != "rs"):
        sets = f"the sets {', '.join(SETS)} and rs+DEFECT (builtin has rs)"
        raise Failure(f"the kernel {name} has {sets}, and not {modset}")
    if name == "builtin":
        [found] = (builtin() / "lib/modules").iterdir()
        return found
    inputs = [kernel(name).name, HELPER, recipe(lay_over, external, make, Parts)]
    part = SETS[base]
    inputs += [*CORES[part](), CORE, recipe(patched_core)] if part else []
    if base in OURS:
        inputs += OURS[base] + ([COVERAGE] if base == "coverage" else [])
        inputs += [*driver_files(), *(TESTING / f"defects/{defect}.patch" for defect in defects)]

    def build(new, run):
        with working(name, kernel(name) / "work"):
            parts = Parts(name, run)
            built = [parts.helper()]
            if base == "coverage":
                built.append(parts.sancov())
            if part:
                built.append(parts.core(part))
            if base in OURS:
                # Its vfio-pci goes over the core's.
                built.append(parts.driver(defects, modset, OURS[base]))
            run("", "cp", "-al", parts.own / "lib", new)
            lay_over(run, new, built)

    [found] = (artifact(f"modules-{name}-{modset}", inputs, build) / "lib/modules").iterdir()
    return found


def clippy(run):
    """Builds the driver with clippy for Debian's kernel. Returns the module; a warning fails."""
    with working("debian", kernel("debian") / "work"):
        parts = Parts("debian", run)
        parts.core()
        return parts.driver(part="clippy", variables=["CLIPPY=1"]) / "vfio-pci-rs.ko"
