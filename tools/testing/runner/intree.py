# SPDX-License-Identifier: GPL-2.0
"""Grafts the driver into a kernel tree: `make intree KSRC=DIR`.

The tree gets the patches, the driver and its documentation, the selftests, and a line each in the
files around them. It can be grafted again, but for a tree with other versions of the patches. Files
that are as they should be keep their time stamps, and none is written in place: other links to it
keep their content.
"""

import os
import re
import subprocess
from pathlib import Path

from . import REPO, Failure, driver_files, patches, shown
from .artifact import files_of

TARGET = "drivers/vfio/pci/rust"
SELFTESTS = "tools/testing/selftests/vfio_pci_rs"
DOCUMENTATION = "Documentation/driver-api/vfio-pci-rs"
ABI = "Documentation/ABI/testing"
# Of Documentation/, these are about this repository.
OURS = ("benchmark", "contributing", "rust-vfio")
MAINTAINERS = f"""
VFIO RUST PCI DRIVER
L:	kvm@vger.kernel.org
L:	rust-for-linux@vger.kernel.org
S:	Maintained
F:	{ABI}/*-vfio_pci_rs
F:	{DOCUMENTATION}/
F:	{TARGET}/
F:	{SELFTESTS}/"""
# Lines to add to a file of the tree, and what the line before them matches.
ADDITIONS = {
    "Documentation/driver-api/index.rst": (r"   vfio-pci-.*", "   vfio-pci-rs/index"),
    "drivers/vfio/pci/Makefile": (
        r"obj-\$\(CONFIG_\w+\).*", "\nobj-$(CONFIG_VFIO_PCI_RS) += rust/"
    ),
    "drivers/vfio/pci/Kconfig": (r"source .*", f'\nsource "{TARGET}/Kconfig"'),
    "tools/testing/selftests/Makefile": (r"TARGETS \+= vfio", "TARGETS += vfio_pci_rs"),
    "MAINTAINERS": (r"F:	drivers/vfio/pci/qat/", MAINTAINERS),
}
# What a kernel tree that can have the driver has, beside these.
NEEDED = ("drivers/vfio/pci/vfio_pci_core.c", "rust/kernel/pci.rs", *ADDITIONS)


def graft(tree):
    for name in NEEDED:
        if not (tree / name).exists():
            raise Failure(f"{shown(tree)} is no kernel tree that can have the driver: no {name}")
    apply_patches(tree)
    _replace(tree / TARGET, _sources(REPO, driver_files()) | {"Makefile": kbuild_part()})
    _replace(tree / SELFTESTS, _sources(REPO / SELFTESTS, [REPO / SELFTESTS]))
    folder = REPO / "Documentation"
    documents = _sources(folder, [file for file in folder.glob("*.rst") if file.stem not in OURS])
    for name in OURS:
        documents["index.rst"] = documents["index.rst"].replace(f"   {name}\n", "")
    _replace(tree / DOCUMENTATION, documents)
    for entry in (REPO / ABI).iterdir():
        put(tree / ABI / entry.name, entry.read_text())
    for name, (pattern, lines) in ADDITIONS.items():
        _add(tree / name, pattern, lines)


def _sources(base, paths):
    """Returns the texts of the sources in `paths`, by their names relative to `base`."""
    files = (file for path in paths for file in files_of(path) if _is_source(file))
    return {str(file.relative_to(base)): file.read_text() for file in files}


def _is_source(path):
    names = ("Makefile", "Kconfig", ".gitignore", "config", "settings")
    is_source = path.suffix in (".rs", ".c", ".h", ".rst") or path.name in names
    return is_source and path.is_file() and "generated" not in path.name


def put(path, content):
    """Gives a file this content, unless it has it already."""
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(content)
    new.chmod(0o644)
    new.rename(path)


def _replace(directory, files):
    """Makes `files`, content by relative path, the sources in `directory`."""
    for name, content in files.items():
        put(directory / name, content)
    for path in directory.rglob("*"):
        if _is_source(path) and str(path.relative_to(directory)) not in files:
            path.unlink()


def _add(path, pattern, lines):
    """Adds `lines` behind the last line that matches `pattern`, unless they are there."""
    text = path.read_text()
    if f"\n{lines.splitlines()[-1]}\n" in text:
        return
    matches = list(re.finditer(f"^{pattern}\n", text, re.MULTILINE))
    if not matches:
        raise Failure(f"looked for a line like '{pattern}' in {shown(path)}")
    end = matches[-1].end()
    put(path, f"{text[:end]}{lines}\n{text[end:]}")


def kbuild_part():
    """Returns the part of the Makefile that kbuild reads."""
    text = (REPO / "Makefile").read_text()
    [part] = re.findall(r"^ifneq \(\$\(KERNELR.*\n\n([\s\S]*?)\n\nelse$", text, re.MULTILINE)
    return f"# SPDX-License-Identifier: GPL-2.0\n\n{part}\n"


def apply_patches(tree):
    """Applies the patches to `tree`, all or none, unless it has them."""
    text = "".join(patch.read_text() for patch in patches())
    # A repository around the tree is another one.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}

    def git_apply(*options):
        command = ["git", "-C", tree, "apply", *options]
        pipes = {"input": text, "capture_output": True, "text": True}
        return subprocess.run(command, check=False, env=environment, **pipes)

    if git_apply("--reverse", "--check").returncode and (failed := git_apply()).returncode:
        raise Failure(f"the patches do not apply to {shown(tree)}", failed.stderr)


def main():
    tree = Path(os.environ.get("KSRC") or "/nonexistent")
    if not tree.is_dir():
        raise Failure("needs a kernel tree, as in: make intree KSRC=/usr/src/linux")
    graft(tree)
    print(f"The driver is in {shown(tree / TARGET)}; CONFIG_VFIO_PCI_RS enables it.")
