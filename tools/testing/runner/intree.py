# SPDX-License-Identifier: GPL-2.0
"""Grafts the driver into a kernel tree: `make intree KSRC=DIR`.

The tree gets the patches, the driver and its documentation, the selftests, and a line each in the files
around them. It can be grafted again, but for a tree with other versions of the patches. Files that are as
they should be keep their time stamps, and none is written in place: other links to it keep their content.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import REPO, TESTING, Failure, driver_files, shown

TARGET = "drivers/vfio/pci/rust"
SELFTESTS = "tools/testing/selftests/vfio_pci_rs"
DOCUMENTATION = "Documentation/driver-api/vfio-pci-rs"
ABI = "Documentation/ABI/testing"
# Of Documentation/, these are about this repository.
OURS = ("benchmark", "contributing")
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
    "drivers/vfio/pci/Makefile": (r"obj-\$\(CONFIG_\w+\).*", "\nobj-$(CONFIG_VFIO_PCI_RS) += rust/"),
    "drivers/vfio/pci/Kconfig": (r"source .*", f'\nsource "{TARGET}/Kconfig"'),
    "tools/testing/selftests/Makefile": (r"TARGETS \+= vfio", "TARGETS += vfio_pci_rs"),
    "MAINTAINERS": (r"F:	drivers/vfio/pci/qat/", MAINTAINERS),
}
# What a kernel tree that can have the driver has, beside these.
NEEDED = ("drivers/vfio/pci/vfio_pci_core.c", "rust/kernel/pci.rs", *ADDITIONS)


def graft(tree):
    """Puts the driver into the kernel tree `tree`."""
    for name in NEEDED:
        if not (tree / name).exists():
            raise Failure(f"looked for {name} in {shown(tree)}, which a kernel tree that can have the driver has")
    apply_patches(tree)
    sources = [file for path in driver_files() for file in ([path] if path.is_file() else path.rglob("*"))]
    driver = {str(file.relative_to(REPO)): file.read_text() for file in sources if _is_source(file)}
    _replace(tree / TARGET, driver | {"Makefile": kbuild_part()})
    selftests = TESTING / "selftests/vfio_pci_rs"
    _replace(tree / SELFTESTS, {file.name: file.read_text() for file in selftests.iterdir() if _is_source(file)})
    documents = {file.name: file.read_text() for file in (REPO / "Documentation").glob("*.rst") if file.stem not in OURS}
    _replace(tree / DOCUMENTATION, {name: re.sub(rf"^   ({'|'.join(OURS)})\n", "", text, flags=re.M) for name, text in documents.items()})
    for entry in (REPO / ABI).iterdir():
        put(tree / ABI / entry.name, entry.read_text())
    for name, (pattern, lines) in ADDITIONS.items():
        _add(tree / name, pattern, lines)


def _is_source(path):
    names = ("Makefile", "Kconfig", ".gitignore", "config", "settings")
    return "generated" not in path.name and (path.suffix in (".rs", ".c", ".h", ".rst") or path.name in names) and path.is_file()


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
    [part] = re.findall(r"^ifneq \(\$\(KERNELRELEASE\),\)\n\n(.*?)\n\nelse$", text, re.MULTILINE | re.DOTALL)
    return f"# SPDX-License-Identifier: GPL-2.0\n\n{part}\n"


def apply_patches(tree):
    """Applies the patches to `tree`, all or none, unless it has them."""
    patches = sorted((REPO / "patches").glob("*.patch"))
    texts = [patch.read_text() for patch in patches]
    touched = {name for text in texts for name in re.findall(r"^(?:---|\+\+\+) [ab]/(\S+)", text, re.MULTILINE)}
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)

        def patched(*options):
            command = ["patch", "-d", copy, "-p1", "--force", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-"]
            return subprocess.run([*command, *options], capture_output=True, text=True, check=False)

        def start():
            shutil.rmtree(copy)
            for name in touched:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                if (tree / name).exists():
                    shutil.copy(tree / name, copy / name)

        # The next patch may have changed the same lines: only all, the last one first, show that they are there.
        start()
        if all(patched("--reverse", "-i", patch).returncode == 0 for patch in reversed(patches)):
            return
        start()
        for patch in patches:
            ended = patched("-i", patch)
            if ended.returncode:
                raise Failure(f"{patch.name} does not apply to {shown(tree)}", ended.stdout + ended.stderr)
        for name in touched:
            put(tree / name, (copy / name).read_text())


def add_parser(subparsers):
    def run(_):
        tree = Path(os.environ.get("KSRC") or "/nonexistent")
        if not tree.is_dir():
            raise Failure("needs a kernel tree, as in: make intree KSRC=/usr/src/linux")
        graft(tree)
        print(f"The driver is in {shown(tree / TARGET)}; CONFIG_VFIO_PCI_RS enables it.")

    subparsers.add_parser("intree", help="put the driver into the kernel tree $KSRC").set_defaults(run=run)
