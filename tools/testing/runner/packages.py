# SPDX-License-Identifier: GPL-2.0
"""Debian packages of the driver: `make deb [OUT=DIR]`.

Their source is put together from tools/package, the driver, the patches, and the modules for
Debian's kernel that are built already.
"""

import os
import shutil
import tempfile
from pathlib import Path

from . import ARCH, REPO, driver_files, modules, patches, shown
from .artifact import artifact, recipe
from .layers import builder, building

SOURCE = REPO / "tools/package"
VERSION, DATE = "1.0", "Fri, 27 Nov 2026 12:00:00 +0000"
CHANGELOG = """vfio-pci-rs ({version}) unstable; urgency=medium

  * vfio-pci with the life cycle of functions in Rust.

 -- vfio-pci-rs developers <kvm@vger.kernel.org>  {date}
"""
MANUAL = REPO / "Documentation/admin-guide.rst"


def stage(tree, version, built):
    """Puts the source of a version together in the directory `tree`."""
    kernel, updates = built.name, built / "updates"
    shutil.copytree(SOURCE, tree)
    shutil.copy(MANUAL, tree)
    for name, paths in (
        ("driver", driver_files()),
        ("patches", patches()),
        ("modules", [*updates.glob("vfio-pci*.ko"), updates / "vfio_iommu_type1.ko"]),
    ):
        (tree / name).mkdir()
        for path in paths:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, tree / name / path.name)
    debian = tree / "debian"
    (debian / "changelog").write_text(CHANGELOG.format(version=version, date=DATE))
    (debian / "source").mkdir()
    (debian / "source/format").write_text("3.0 (native)\n")
    for script in debian.glob("modules.*"):
        script.rename(debian / f"vfio-pci-rs-modules-{kernel}{script.suffix}")
    for path in debian.iterdir():
        if path.is_file():
            text = path.read_text()
            path.write_text(text.replace("@KERNEL@", kernel).replace("@VERSION@", version))


def packages(version=VERSION):
    """Returns a directory with the packages of a version, the modules for Debian's kernel."""
    built = modules.modules("debian", "in-place")
    inputs = [SOURCE, MANUAL, *driver_files(), *patches(), str(built), str(builder())]
    inputs += [version, DATE, CHANGELOG, recipe(stage, building)]

    def build(new, run):
        with tempfile.TemporaryDirectory() as directory:
            tree = Path(directory, "vfio-pci-rs")
            stage(tree, version, built)
            environment = os.environ | {"KERNEL": built.name, "VERSION": version}
            make = ["dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps"]
            if ARCH:
                make, environment["STRIP"] = [*make, "--host-arch", ARCH], "llvm-strip"
            run("build the packages", *building(*make), cwd=tree, env=environment)
            check = ["lintian", "--fail-on", "error,warning", "--allow-root", "--info"]
            run("check them", *building(*check, *Path(directory).glob("*.changes")))
            for package in Path(directory).glob("*.deb"):
                shutil.copy(package, new)

    return artifact(f"packages-{version}", inputs, build)


def main():
    made, out = packages(), Path(os.environ.get("OUT", ""))
    for package in sorted(made.iterdir()):
        if out.name:
            shutil.copy(package, out)
        print(shown((out if out.name else made) / package.name))
