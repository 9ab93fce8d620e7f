# SPDX-License-Identifier: GPL-2.0
"""Rules about the text of the driver that no other tool knows; each yields complaints."""

import re

from . import REPO, driver_files
from .artifact import files_of

LONGEST = 400
# Imports against the direction of the others, and their reasons.
ALLOWED = {
    ("crate::reflck::claim", "crate::reflck::membership"): "a guard ends what the membership began",
    ("crate::reflck::registry", "crate::reflck::membership"): "a membership begins by joining",
    ("crate::vfio::driver", "crate::vfio::device"): "a trait and its device, as in kernel::fwctl",
}
USE = re.compile(r"^(?:pub\([a-z]+\) )?use ([^;]*);", re.MULTILINE)
REEXPORT = re.compile(r"^pub\(crate\) use ([^;]*);", re.MULTILINE)
INLINE = re.compile(r"\b(crate(?:::\w+)+)")


def rust_files(*excluded):
    """Returns the driver's Rust files, but for those of the excluded folders."""
    files = [file for path in driver_files() for file in files_of(path) if file.suffix == ".rs"]
    return [file for file in files if file.relative_to(REPO).parts[0] not in excluded]


def code(path):
    """Returns a file without its comments."""
    return re.sub(r"//.*", "", path.read_text())


def unsafe_outside():
    """No unsafe in the driver proper: it is in the abstractions and the bindings."""
    for file in rust_files("vfio", "bindings"):
        if re.search(r"\bunsafe\b", code(file)):
            yield f"{file.relative_to(REPO)} has unsafe code, which belongs in vfio/ or bindings/"


def too_long():
    """A file fits in a head."""
    for file in rust_files("bindings"):
        length = len(file.read_text().splitlines())
        if length > LONGEST:
            yield f"{file.relative_to(REPO)} has {length} lines, and should have at most {LONGEST}"


def unlicensed():
    """Every file names its license."""
    without = re.compile(r"COPYING|\.rustfmt\.toml|.*\.(patch|lock|json)")
    for file in files_of(REPO):
        # The kernel's ABI entries have no such line.
        if without.fullmatch(file.name) or "ABI" in file.parts or file.is_symlink():
            continue
        if "SPDX-License-Identifier: GPL-2.0" not in "".join(file.read_text().splitlines(True)[:3]):
            yield f"{file.relative_to(REPO)} has no SPDX line"


def circles():
    """Modules import each other in one direction, but for ALLOWED."""
    edges = {edge for edge in imports() if edge not in ALLOWED}
    for edge in ALLOWED.keys() - imports():
        yield f"{edge[0]} does not import {edge[1]} any more: remove it from ALLOWED"
    while edges:
        # A module that imports nothing, or that nothing imports, is in no circle.
        users, used = ({edge[end] for edge in edges} for end in (0, 1))
        left = {(a, b) for a, b in edges if b in users and a in used}
        if left == edges:
            yield from sorted(f"{a} imports {b}, in a circle" for a, b in edges)
            return
        edges = left


def imports():
    """Returns pairs of modules, of which the first uses an item of the second."""
    modules = {module_of(file): code(file) for file in rust_files()}
    exported = {name: list(_paths(REEXPORT, name, text, modules)) for name, text in modules.items()}
    uses = set()
    for name, text in modules.items():
        own = list(_paths(USE, name, REEXPORT.sub("", text), modules))
        own += [tuple(path.split("::")) for path in INLINE.findall(USE.sub("", text))]
        uses |= {(name, _resolve(path, modules, exported)) for path in own}
    return {(user, used) for user, used in uses if user != used}


def module_of(file):
    parts = file.relative_to(REPO).with_suffix("").parts
    return "::".join(["crate", *(part for part in parts if part not in ("mod", "vfio_pci_rs"))])


def _paths(pattern, name, text, modules):
    for tree in pattern.findall(text):
        for path in _expand(tree):
            bases = {"crate": "crate", "self": name, "super": name.rpartition("::")[0]}
            base = bases.get(path[0], f"{name}::{path[0]}")
            # Other paths are of other crates.
            if base in modules or path[0] in bases:
                yield (*base.split("::"), *path[1:])


def _expand(tree):
    tree = re.sub(r"\s+as \w+|\s", "", tree)
    while inner := re.search(r"([\w:]*)\{([^{}]*)\}", tree):
        paths = ",".join(inner[1] + path for path in inner[2].split(",") if path)
        tree = tree[: inner.start()] + paths + tree[inner.end() :]
    return [path.split("::") for path in tree.split(",")]


def _resolve(path, modules, exported):
    """Returns the module that an item is in, whatever module it was taken from."""
    length = max(n for n in range(1, len(path) + 1) if "::".join(path[:n]) in modules)
    module = "::".join(path[:length])
    for original in exported[module] if length < len(path) else ():
        if original[-1] == path[length]:
            return _resolve(original, modules, exported)
    return module
