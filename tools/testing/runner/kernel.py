# SPDX-License-Identifier: GPL-2.0
"""Kernels, sets of modules for them, and the programs that the guests run.

Every kernel is Debian's source as it is, so none is rebuilt for a change of the driver or the
patches. Modules are external: a copy of drivers/vfio/pci, patched, and the driver, laid over the
kernel's own. The kernel `builtin` alone has the driver in its image.

During a build, the source is at /tmp/linux and the kernel's objects are at /tmp/build, for all
kernels: Rust's crates and kbuild's commands contain these paths, and a copy of a build stays up to
date.
"""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from . import CACHE, ROOT_KEY, TESTING, Failure, cargo, driver_files, intree, patches
from .artifact import artifact, key, locked, recipe, remove, say

LINUX, BUILD, WORK = Path("/tmp/linux"), Path("/tmp/build"), Path("/tmp/work")
# The root as it is in the cache's file system: hard links do not cross mounts.
ROOT = CACHE / f"root-{ROOT_KEY}"
FRAGMENTS = {
    "perf": ["perf", "kunit"],
    "debug": ["perf", "debug"],
    "kcsan": ["perf", "kcsan"],
    "builtin": ["perf", "kunit", "builtin"],
}
KERNELS = ("debian", *FRAGMENTS)
# `make tinyconfig` is these three.
TINY = ("kernel/configs/tiny-base.config", "kernel/configs/tiny.config")
TINY += ("arch/x86/configs/tiny.config",)
HELPER = TESTING / "helper-module"
# The files that kbuild and bindgen read; what they generate among them stays.
SOURCES = ["--exclude=*.mod.c", "--exclude=*generated*", "--exclude=.*", "--include=*/"]
SOURCES += ["--include=*.rs", "--include=*.[chS]", "--include=Makefile", "--include=Kconfig"]
SOURCES += ["--include=*Kbuild", "--include=*_parameters"]


# The parts with drivers/vfio/pci, and their patches; the sets of modules, and the part each needs.
CORES = {"core": patches, "fixed": lambda: patches()[:1]}
SETS = {"stock": None, "fixed": "fixed", "core": "core", "rs": "core"}


def source():
    """Returns the source of Debian's kernel as it is packaged."""

    def unpack(new, run):
        [packed] = Path("/usr/src").glob("linux-source-*.tar.xz")
        run(f"unpack {packed.name}", "tar", "-xf", packed, "--strip-components=1", "-C", new)

    return artifact("source", [recipe(unpack)], unpack)


def make(run, what, build, *arguments, linux=None, work=None, writable=True):
    """Runs make for the kernel whose objects are in `build`, and returns its output."""
    binds = ["--ro-bind", linux or source(), LINUX,
             "--bind" if writable else "--ro-bind", build, BUILD]  # fmt: skip
    if work:
        binds += ["--bind", work, WORK]
    jobs = f"-j{os.cpu_count()}"
    command = ["make", "-C", LINUX, f"O={BUILD}", jobs, "LOCALVERSION=", *arguments]
    return run(what, "bwrap", "--dev-bind", "/", "/", *binds, "--", *command)


def refuse_warnings(output, directory):
    """Fails if a compiler warned. Removes what it built, which would not warn again."""
    if re.search("warning:", output, re.IGNORECASE):
        remove(directory)
        raise Failure("the build has warned", output)


def compiler(name):
    """Returns the variables of make for a kernel: KASAN and Rust go together with clang only."""
    return ["LLVM=1"] if name in ("debug", "kcsan") else []


def kernel(name):
    """Returns a directory with build/, the kernel's objects, and lib/modules/VERSION.

    VERSION has the kernel's own modules, vmlinuz and config.
    """
    if name == "debian":
        return artifact("kernel-debian", [recipe(prepare_debian)], prepare_debian)
    fragments = [TESTING / f"kernels/{fragment}.config" for fragment in FRAGMENTS[name]]
    asked = repr([options(fragment) for fragment in fragments])
    if name == "builtin":
        inputs = [asked, *driver_files(), *patches(), HELPER]
        inputs.append(recipe(intree.graft, build_builtin, configure))

        def build_again(new, run):
            with working("builtin", CACHE / "work-builtin"):
                build_builtin(new, run, fragments)

        return artifact("kernel-builtin", inputs, build_again)

    def build(new, run):
        say(f"Building the kernel {name} (once; some minutes)")
        (new / "build").mkdir()
        configure(run, new / "build", fragments, compiler(name))
        build_kernel(run, name, new / "build", new)

    code = recipe(build, configure, build_kernel, make, compiler)
    checked = [CHECKED] if compiler(name) else []
    return artifact(f"kernel-{name}", [asked, *checked, code], build)


@contextlib.contextmanager
def working(name, directory):
    """Holds the lock of a directory in which builds go on from the last one.

    Removes it first if a build in it was killed, which can leave half a file that looks up to date.
    """
    with locked(f"work-{name}"):
        unfinished = CACHE / f"work-{name}.unfinished"
        if unfinished.exists():
            remove(directory)
        unfinished.touch()
        try:
            yield
        except Failure:
            remove(unfinished)
            raise
        remove(unfinished)


def prepare_debian(new, run):
    """Makes the Rust metadata that Debian's headers lack, from the same source and configuration.

    The hashes in the names of Rust's symbols come out the same, so modules load into the packaged
    kernel.
    """
    [packaged] = (ROOT / "usr/lib/modules").glob("*/vmlinuz")
    version = packaged.parent.name
    build = new / "build"
    build.mkdir()
    shutil.copy(packaged.with_name("config"), build / ".config")
    shutil.copy(ROOT / f"usr/src/linux-headers-{version}/Module.symvers", build)
    base = make(run, "", build, "--silent", "kernelversion").strip()
    # The source knows its own version; the rest of the package's is Debian's.
    local = f"LOCALVERSION={version.removeprefix(base)}"
    make(run, f"prepare the source of {version}", build,
         local, "olddefconfig", "prepare", "modules_prepare")  # fmt: skip
    found = make(run, "", build, local, "--silent", "kernelrelease").strip()
    if found != version:
        raise Failure(f"looked for the source of {version}, and linux-source prepares {found}")
    (new / "lib/modules").mkdir(parents=True)
    run("", "cp", "-al", packaged.parent, new / "lib/modules")


def configure(run, build, fragments, variables=(), linux=None):
    """Configures a kernel: an option that no fragment asks for is off."""
    merge = ["env", "-C", LINUX, *variables, "scripts/kconfig/merge_config.sh", "-n",
             "-O", BUILD, *TINY, *fragments]  # fmt: skip
    run("configure it", "bwrap", "--dev-bind", "/", "/",
        "--ro-bind", linux or source(), LINUX, "--bind", build, BUILD, *merge)  # fmt: skip
    # A later fragment overrules an earlier one.
    asked = {option: value for fragment in fragments for option, value in options(fragment).items()}
    got = options(build / ".config")
    missing = [f"{option}={value}"
               for option, value in asked.items() if got.get(option, "n") != value]  # fmt: skip
    if missing:
        raise Failure(
            f"the configuration is not as the fragments ask for: {' '.join(sorted(missing))}")


def options(path):
    """Returns the options that a .config or a fragment sets."""
    text = path.read_text()
    values = {name: "n" for name in re.findall(r"^# (CONFIG_\w+) is not set$", text, re.MULTILINE)}
    return values | dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


# KASAN checks the accesses of the code that handles the driver's objects. The rest of the kernel
# allocates and frees under KASAN, but its own accesses are not checked. Otherwise a boot takes
# three to four times as long, mostly to check the unwinder that records who allocated what.
CHECKED = (
    "KASAN_SANITIZE=$(if $(filter kernel kernel/locking kernel/irq lib lib/% rust rust/%"
    " drivers/base drivers/base/% drivers/iommu drivers/iommu/% drivers/pci drivers/pci/%"
    " drivers/vfio drivers/vfio/%,$(obj)),,n)"
)


def build_kernel(run, name, build, new, linux=None):
    """Builds a kernel that is configured, and installs it in `new`."""
    variables = compiler(name)
    # clang inlines functions that the tests count with the function tracer.
    flags = [*variables, "CFLAGS_pci.o=-fno-inline-functions", CHECKED] if variables else []
    refuse_warnings(make(run, f"build the kernel {name}", build,
                         *flags, "bzImage", "modules", linux=linux), build)  # fmt: skip
    make(run, "", build, *flags, f"INSTALL_MOD_PATH={new}", "modules_install", linux=linux)
    [installed] = (new / "lib/modules").iterdir()
    (installed / "build").unlink(missing_ok=True)
    shutil.copy(build / "arch/x86/boot/bzImage", installed / "vmlinuz")
    shutil.copy(build / ".config", installed / "config")


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


def patched_core(files):
    """Returns a function that copies the directory and header that `files`, patches, change."""

    def stage(directory, run):
        (directory / "include/linux").mkdir(parents=True)
        shutil.copy(source() / "include/linux/vfio_pci_core.h", directory / "include/linux")
        shutil.copytree(source() / "drivers/vfio/pci", directory / "drivers/vfio/pci")
        apply(directory, files, run)

    return stage


def apply(directory, files, run):
    """Applies patches to `directory`."""
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
        self.work = self.own / "work"
        self.built = []

    def add(self, part, inputs, stage, *arguments, module="", what=""):
        """Builds a part, unless its inputs and those of the earlier parts are as the last time."""
        wanted = key([*self.built, part, *inputs, *arguments, recipe(external, make)])
        stamp = self.work / f"{part}.built"
        if not stamp.exists() or stamp.read_text() != wanted:
            remove(stamp)
            arguments = [*compiler(self.name), *arguments]
            external(self.run, self.own / "build", self.work, part, stage, arguments, module, what)
            stamp.write_text(wanted)
        self.built.append(part + wanted)
        return self.work / part

    def helper(self):
        """Builds the helper module of the tests."""
        return self.add("helper", [HELPER], copy_of(HELPER.iterdir()),
                        what="build the tests' helper module")  # fmt: skip

    def core(self, part="core"):
        """Builds drivers/vfio/pci with the patches of a set."""
        files = CORES[part]()
        first = f"NOSTDINC_FLAGS=-nostdinc -I{WORK}/{part}/include"
        inputs = [*files, recipe(patched_core)]
        return self.add(part, inputs, patched_core(files), first, module="drivers/vfio/pci",
                        what=f"build drivers/vfio/pci ({part})")  # fmt: skip

    def driver(self, defects=(), part="rs", variables=()):
        """Builds the driver, with `defects` in it. The parts before it must be the core."""
        files = driver_files()
        changes = [TESTING / f"defects/{defect}.patch" for defect in defects]

        def stage(directory, run):
            copy_of(files)(directory, run)
            apply(directory, changes, run)

        arguments = [f"NOSTDINC_FLAGS=-nostdinc -I{WORK}/core/include", "CONFIG_VFIO_PCI_RS=m"]
        arguments += [f"KBUILD_EXTRA_SYMBOLS={WORK}/core/drivers/vfio/pci/Module.symvers",
                      *variables]  # fmt: skip
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
    modules, `fixed` has vfio-pci and its core with the first patch, `core` with all patches, `rs`
    the driver too, and `rs+DEFECT` the driver with defects/DEFECT.patch. All have the helper
    module of the tests.
    """
    base, *defects = modset.split("+")
    is_set = base == "rs" or (base in SETS and not defects)
    if not is_set or (name == "builtin" and modset != "rs"):
        sets = f"the sets {', '.join(SETS)} and rs+DEFECT (builtin has rs)"
        raise Failure(f"the kernel {name} has {sets}, and not {modset}")
    if name == "builtin":
        [found] = (kernel(name) / "lib/modules").iterdir()
        return found
    inputs = [kernel(name).name, HELPER, recipe(lay_over, external, make, Parts)]
    part = SETS[base]
    inputs += [*CORES[part](), recipe(patched_core)] if part else []
    if base == "rs":
        inputs += [*driver_files(), *(TESTING / f"defects/{defect}.patch" for defect in defects)]

    def build(new, run):
        with working(name, kernel(name) / "work"):
            parts = Parts(name, run)
            built = [parts.helper()]
            if part:
                built.append(parts.core(part))
            if base == "rs":
                built.append(parts.driver(defects, modset))
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


def programs():
    """Returns the directory of the guests' programs, the workspace's binaries."""
    inputs = [TESTING / "Cargo.toml", TESTING / "Cargo.lock", *cargo.members()]

    def build(new, run):
        arguments = ["build", "--release", "--locked", "--bins", cargo.MESSAGES]
        said = cargo.cargo(run, "build the guests' programs", *arguments)
        for program in cargo.programs(said).values():
            shutil.copy(program, new)

    return artifact("programs", [*inputs, recipe(build)], build)


def selftests():
    """Returns the directory of the kernel's vfio selftests and scripts/, the driver's in own/."""
    ours = TESTING / "selftests/vfio_pci_rs"

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
        shutil.copytree(linux / "tools/testing/selftests/vfio/scripts", new / "scripts")
        objects = (left for part in (new, own) for left in (part / "libvfio", *part.glob("*.[od]")))
        for left in (new / "build", tree, *objects):
            remove(left)

    return artifact("selftests", [ours, recipe(build)], build)

