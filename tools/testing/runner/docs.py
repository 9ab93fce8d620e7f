# SPDX-License-Identifier: GPL-2.0
"""Checks that every name in README.md and Documentation exists, and the format of these files."""

import re
import subprocess

from . import REPO
from .prose import pristine, tracked
from .results import Result, wrong

# Names of the kernel. They are looked up in its source if the cache has it.
KERNEL = set("""VFIO_DEVICE_CDEV pci_bridge_wait_for_secondary_bus pci_reset_bus
    pci_restore_aspm_l1ss_state pci_try_reset_function vfio_df_close vfio_df_open
    vfio_pci_core_disable vfio_pci_core_enable vfio_pci_core_ioctl vfio_pci_core_register_device
    vfio_pci_dev_set_try_reset vfio_pci_device_init_perf_test""".split())
KERNEL_DIRS = ("drivers/vfio", "drivers/pci", "tools/testing/selftests/vfio")
KERNEL_FILES = (
    "Documentation/driver-api/index.rst",
    "Documentation/process/coding-style.rst",
    "Documentation/rust/coding-guidelines.rst",
    "drivers/vfio/pci/vfio_pci_igd.c",
)
# Names of other programs.
OTHERS = {"--import", "sign-file", "linux-kbuild", "read", "write", "mmap", "ioctl"}

FILE = (
    r"(?<![\w/.$}-])(?:[\w.-]+/)*[\w-]+\.(?:rst|rs|md|toml|patch|py|svg|c|h)\b"
    r"|(?<![\w/.$}-])%s/[\w./-]*(?![\w:])"
)
# What makes a word in a literal a name.
NAME = r"_|::|[a-z][A-Z]|^[A-Z]"
# A document that a source mentions.
MENTION = r"\b(?:Documentation/)?(?:[\w-]+/)*[\w-]+\.rst\b"
MAKE = r"(?:^ +|``?|sh -c '|&& )make((?: [a-zA-Z][\w-]*(?:=[\w-]*)?)*)"
# What stands for a value, or for one that changes, in a quoted log message.
VALUE = r"\S*[\d/]\S*|\bpci-stub\b|\.\.\.|^(?:bus|slot) | (?:bus|slot) "


class Names:
    """The names that the sources of a repository define."""

    def __init__(self, repo):
        self.files = {name.rpartition("/")[2] for name in KERNEL_FILES} | set(KERNEL_FILES)
        self.words, self.functions = set(KERNEL), KERNEL | OTHERS
        self.source = driver = makefile = ""
        self.mentioned = set()
        for path in tracked(repo):
            name = path.relative_to(repo)
            self.files |= {path.name, str(name)} | {f"{parent}/" for parent in name.parents}
            if is_document(name):
                continue
            text = path.read_text(errors="replace")
            self.words |= set(re.findall(r"\w+", text))
            is_c = path.suffix in (".c", ".h", ".patch")
            self.functions |= set(re.findall(r"\b(\w+)\(" if is_c else r"\b(?:fn|def) (\w+)", text))
            self.source += text
            self.mentioned |= {(name, file) for file in re.findall(MENTION, text)}
            driver += text if name.parts[0] == "bindings" else ""
            makefile += text if str(name) == "Makefile" else ""
        self.targets = set(" ".join(re.findall(r"^([a-z][\w -]*):", makefile, re.M)).split())
        self.variables = set(re.findall(r"\$[({](\w+)", makefile))
        self.parameters = set(re.findall(r"^(?:module_)?param\w*\((\w+)", driver, re.M))
        self.events = set(re.findall(r"\bTRACE_EVENT\((\w+)", driver))
        tops = (re.escape(file[:-1]) for file in self.files if file.find("/") == len(file) - 1)
        self.tops = f"(?:{'|'.join(tops)})"


def is_document(name):
    """Returns whether `name`, relative to the repository, is a document or a picture in one."""
    return name.parts[0] == "Documentation" or str(name) == "README.md"


def unknown(text, names, directory=""):
    """Returns, each with its kind, the names in `text` that do not exist."""
    functions = re.findall(r"\b(\w+)\(\)", text)
    found = {("function", name) for name in functions if name not in names.functions}
    for file in (file.rstrip(".") for file in re.findall(FILE % names.tops, text)):
        if not names.files & {file, f"{file}/", directory + file}:
            found.add(("file", file))
    for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text):
        if option not in names.source and option not in OTHERS:
            found.add(("option", option))
    for parameter in set(re.findall(r"\bvfio_pci_rs\.(\w+)=", text)) - names.parameters:
        found.add(("parameter", parameter))
    for argument in " ".join(re.findall(MAKE, text, re.M)).split():
        variable, is_set, value = argument.partition("=")
        if variable not in (names.variables if is_set else names.targets):
            found.add(("make argument", argument))
        elif value not in ("", "DIR") and not names.words.issuperset(value.split("-")):
            found.add(("value", argument))
    for literal in map("".join, re.findall(r"``([^`]+)``|(?<!`)`([^`\s]+)`(?![_`])", text)):
        is_name = re.fullmatch(r"\w+(::\w+)*", literal) and re.search(NAME, literal)
        for word in literal.split("::") if is_name else ():
            if word.removeprefix("CONFIG_") not in names.words | names.variables:
                found.add(("name", word))
        if re.fullmatch(r"[a-z_]+(-[a-z_]+)+", literal) and literal not in names.source:
            if literal not in OTHERS | names.targets:
                found.add(("name", literal))
    return sorted(found)


def unknown_messages(text, source):
    """Returns the log messages in `text`, alone on a line, of which a part is not in `source`."""
    source = re.sub(r'"\s*"|\\\n\s*', "", source)
    messages = re.findall(r"^``(?!Unknown symbol)([^`]+ [^`]+)``$", text, re.M)
    parts = ((message, part) for message in messages for part in re.split(VALUE, message))
    return [message for message, part in parts if part.strip(" :,") not in source]


def misfits(text, name):
    lines = text.splitlines()
    if name == "README.md" and len(lines) > 80:
        yield f"{len(lines)} lines, at most 80"
    if "/ABI/" not in name and "SPDX-License-Identifier" not in lines[0]:
        yield "no SPDX tag"
    for number, line in enumerate(lines, 1):
        if len(line) > 80 and not line.startswith("|"):
            yield f"line {number} has {len(line)} columns"


def results(repo=REPO):
    names, texts = Names(repo), {}
    for path in tracked(repo):
        if is_document(path.relative_to(repo)) and path.suffix != ".svg":
            texts[str(path.relative_to(repo))] = path.read_text()
    guide = texts.get("Documentation/admin-guide.rst", "")
    index = texts.get("Documentation/index.rst", "")

    stale = [f"message '{message}'" for message in unknown_messages(guide, names.source)]
    stale += [f"{name}: file {file}" for name, file in names.mentioned if file not in names.files]
    misfit, missing = [], []
    for name, text in texts.items():
        directory = f"{name.rpartition('/')[0]}/"
        stale += [f"{name}: {kind} {what}" for kind, what in unknown(text, names, directory)]
        misfit += [f"{name}: {what}" for what in misfits(text, name)]
        document = name.removeprefix("Documentation/").removesuffix(".rst")
        if name.endswith(".rst") and document != "index" and f"   {document}\n" not in index:
            missing.append(f"{name} in index.rst")
    undescribed = (name for name in names.parameters if f"vfio_pci_rs.{name}=" not in guide)
    missing += [f"parameter {name}" for name in undescribed]
    missing += [f"tracepoint {name}" for name in names.events if f"``{name}``" not in guide]
    return [
        wrong("documentation: names that do not exist", stale),
        wrong("documentation: format", misfit),
        wrong("documentation: nothing is left out", missing),
        gone(pristine()),
    ]


def gone(source):
    """Returns whether the kernel source has all names in KERNEL."""
    name = "documentation: names that the kernel lacks"
    if source is None:
        return Result(name, None, "the cache has no kernel source")
    grep = ["grep", "-rhowE", "|".join(KERNEL), *KERNEL_DIRS]
    words = subprocess.run(grep, cwd=source, check=False, stdout=subprocess.PIPE, text=True).stdout
    bad = KERNEL.difference(words.split()) | {f for f in KERNEL_FILES if not (source / f).exists()}
    return wrong(name, sorted(bad))
