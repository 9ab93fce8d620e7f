# SPDX-License-Identifier: GPL-2.0
"""Kernels: Debian's source as it is, so none is rebuilt for a change of the driver or the patches.

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

from . import ARCH, CACHE, ROOT_KEY, TESTING, Failure, arm64
from .artifact import artifact, locked, recipe, remove, say

LINUX, BUILD, WORK = Path("/tmp/linux"), Path("/tmp/build"), Path("/tmp/work")
# The root as it is in the cache's file system: hard links do not cross mounts.
ROOT = CACHE / f"root-{ROOT_KEY}"
FRAGMENTS = {
    "perf": ["perf", "kunit"],
    "debug": ["perf", "debug"],
    "kcsan": ["perf", "kcsan"],
    "builtin": ["perf", "kunit", "builtin"],
    # Pages of 64 KiB, for arm64.
    "64k": ["perf", "64k"],
}
# Debian's kernel, and the one before it.
DEBIAN = {"debian": "new", "debian-old": "old"}
KERNELS = (*DEBIAN, *FRAGMENTS)
# `make tinyconfig` is these three.
TINY = ("kernel/configs/tiny-base.config", "kernel/configs/tiny.config")
TINY += () if ARCH else ("arch/x86/configs/tiny.config",)


def source(age="new"):
    """Returns a source of Debian as it is packaged.

    `new` is that of Debian's kernel, `old` the one before it, and `stable` that of Debian's stable
    kernel.
    """

    def unpack(new, run):
        [packed] = Path("/usr/src").glob("linux-source-*.tar.xz")
        run(f"unpack {packed.name}", "tar", "-xf", packed, "--strip-components=1", "-C", new)

    def fetch(new, run):
        [newest] = Path("/usr/src").glob("linux-source-*.tar.xz")
        names = available(run, "linux-source-[0-9.]+")
        names = [name for name in names if not newest.name.startswith(f"{name}.tar")]
        if not names:
            raise Failure("looked for a linux-source package beside that of Debian's kernel")
        other = names[-1 if age == "old" else 0]
        download(run, other)
        unpack = """set -o pipefail; dpkg-deb --fsys-tarfile /tmp/$0_*.deb |
            tar -xO --wildcards "*/$0.tar.xz" | tar -xJ --strip-components=1 -C $1"""
        run("unpack it", "bash", "-c", unpack, other, new)

    if age == "new":
        return artifact("source", [recipe(unpack)], unpack)
    return artifact(f"{age}-source", [age, recipe(fetch, available, download)], fetch)


def available(run, pattern):
    """Returns the names of Debian's packages that match, by their versions."""
    said = run("", "apt-cache", "search", "--names-only", f"^{pattern}$")
    names = re.findall(r"^\S+", said, re.MULTILINE)
    return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def download(run, *names):
    """Downloads packages to /tmp."""
    options = ["--quiet", "-o", "Dir::Cache=/tmp", "-o", "APT::Sandbox::User=root"]
    run(f"download {names[0]}", "apt-get", *options, "download", *names, cwd="/tmp")


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
        root = arm64.root() if ARCH else ROOT
        inputs = [recipe(prepare_debian), *([str(root)] if ARCH else [])]
        return artifact("kernel-debian", inputs, lambda new, run: prepare_debian(new, run, root))
    if name == ("debian-old" if ARCH else "64k"):
        raise Failure(f"the kernel {name} is not built for {ARCH or 'amd64: set ARCH=arm64'}")
    if name == "debian-old":
        inputs = [source("old").name, recipe(prepare_older, prepare_debian)]
        return artifact("kernel-debian-old", inputs, prepare_older)
    fragments, asked = wanted(name)
    if ARCH:
        inputs = [asked, recipe(build_arm64, configure, make)]
        return artifact(f"kernel-{name}", inputs, lambda *new_run: build_arm64(name, *new_run))

    def build(new, run):
        say(f"Building the kernel {name} (once; some minutes)")
        (new / "build").mkdir()
        configure(run, new / "build", fragments, compiler(name))
        build_kernel(run, name, new / "build", new)

    code = recipe(build, configure, build_kernel, make, compiler)
    checked = [CHECKED] if compiler(name) else []
    return artifact(f"kernel-{name}", [asked, *checked, code], build)


def wanted(name):
    """Returns the fragments of a kernel's configuration, and the options that they ask for."""
    fragments = [TESTING / f"kernels/{fragment}.config" for fragment in FRAGMENTS[name]]
    fragments += [TESTING / "kernels/arm64.config"] if ARCH else []
    return fragments, repr([options(fragment) for fragment in fragments])


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


def prepare_older(new, run):
    """Does as prepare_debian() for the kernel before Debian's, from its packages."""
    version = ".".join(versions(source("old")))
    [*_, binary] = available(run, rf"linux-binary-{version}\+deb[0-9.]+-amd64")
    parts = "base", "binary", "modules", "headers"
    names = [binary.replace("binary", part) for part in parts]
    download(run, *names)
    with tempfile.TemporaryDirectory(dir=new) as root:
        for name in names:
            [deb] = Path("/tmp").glob(f"{name}_*.deb")
            run("", "dpkg-deb", "--extract", deb, root)
        prepare_debian(new, run, Path(root), source("old"))


def versions(tree):
    """Returns the parts of the version of a kernel tree."""
    text = (tree / "Makefile").read_text()
    return re.findall(r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", text, re.MULTILINE)


def prepare_debian(new, run, root=ROOT, linux=None):
    """Makes the Rust metadata that Debian's headers lack, from the same source and configuration.

    The hashes in the names of Rust's symbols come out the same, so modules load into the packaged
    kernel.
    """
    [packaged] = (root / "usr/lib/modules").glob("*/vmlinuz")
    version = packaged.parent.name
    build = new / "build"
    build.mkdir()
    shutil.copy(packaged.with_name("config"), build / ".config")
    shutil.copy(root / f"usr/src/linux-headers-{version}/Module.symvers", build)
    base = make(run, "", build, "--silent", "kernelversion", linux=linux).strip()
    # The source knows its own version; the rest of the package's is Debian's.
    local = f"LOCALVERSION={version.removeprefix(base)}"
    make(run, f"prepare the source of {version}", build,
         local, "olddefconfig", "prepare", "modules_prepare", linux=linux)  # fmt: skip
    found = make(run, "", build, local, "--silent", "kernelrelease", linux=linux).strip()
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
    variables = compiler(name)
    flags = [*variables, CHECKED] if variables else []
    refuse_warnings(make(run, f"build the kernel {name}", build,
                         *flags, "bzImage", "modules", linux=linux), build)  # fmt: skip
    make(run, "", build, *flags, f"INSTALL_MOD_PATH={new}", "modules_install", linux=linux)
    [installed] = (new / "lib/modules").iterdir()
    (installed / "build").unlink(missing_ok=True)
    shutil.copy(build / "arch/x86/boot/bzImage", installed / "vmlinuz")
    shutil.copy(build / ".config", installed / "config")


def build_arm64(name, new, run):
    """Does as kernel() with clang for arm64, whose image has another name."""
    say(f"Building the kernel {name} for arm64 (once; some minutes)")
    build = new / "build"
    build.mkdir()
    configure(run, build, wanted(name)[0])
    made = make(run, f"build the kernel {name}", build, "Image", "modules")
    refuse_warnings(made, build)
    make(run, "", build, f"INSTALL_MOD_PATH={new}", "modules_install")
    [installed] = (new / "lib/modules").iterdir()
    (installed / "build").unlink(missing_ok=True)
    shutil.copy(build / "arch/arm64/boot/Image", installed / "vmlinuz")
    shutil.copy(build / ".config", installed / "config")
