# SPDX-License-Identifier: GPL-2.0
"""Which code of the driver the tests run: `make coverage`. Not part of `make check`.

Runs suites on a driver whose blocks of code each call ../coverage-module, and maps the calls that
were made to the lines of the source. Each way that a branch can take is a block, and an inlined
function has its blocks at each place that it is inlined at. A line has run if any of its
instructions has. Of vfio-pci-core and type1, the lines that the patches add count.

UNREACHED says why no test runs some lines. The command fails if less than LEAST % have run.
"""

import re
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

from . import REPO, Failure, check, modules, patches, shown, suites, table
from .artifact import Steps
from .kernel import WORK, source
from .kinds import Guest

MODULES = {"vfio_pci_rs": "vfio-pci-rs.ko", "vfio_pci_core": "vfio-pci-core.ko"}
MODULES["vfio_iommu_type1"] = "vfio_iommu_type1.ko"
SECTION = re.compile(r"^ *\[ *\d+\] (\.\S+) +PROGBITS +\S+ \S+ (\S+) \S+ +AX\w* .* (\d+)$", re.M)
# Of a disassembly: a section, a function, an instruction, and the target of the call before it.
CODE = re.compile(r"^Disassembly of section (\S+):$|^[0-9a-f]+ (<)|^ *([0-9a-f]+):\t"
                  r"|^\t+([0-9a-f]+): .*\t__sanitizer_cov_trace_pc-0x4$"
                  r"|^\t+[0-9a-f]+: .*\t_R\w+(9panicking|_fail-)", re.M)  # fmt: skip
# Of the driver, without what bindgen has made, and of drivers/vfio.
LINE = re.compile(
    rf"{WORK}/(?:core-)?coverage/(?P<file>(?:(?!generated)[\w/])+\.\w+):(?P<line>[1-9]\d*)"
)
# A bracket, an attribute or the head of a function, which a copy that nothing calls has as well.
NO_CODE = re.compile(r'\W*$|#\[|(pub(\(\w+\))? )?((const|unsafe|extern "C") )*fn ')

LEAST = 95
# {reason: {file: lines}}. The line before it goes before a line that is not the only one.
UNREACHED = {
    "vfio core closes only an open device, and the reflck finishes only a half close": {
        "open_release.rs": ["Err(_) => _ = kernel::warn_on!(true),"],
        "vfio/clean.rs": ["kernel::warn_on!(true);"],
    },
    "QEMU has no Intel graphics": {
        "vfio/device.rs": [
            'dev_warn!(self.0.pdev(), "Failed to setup Intel IGD regions\\n");',
            "unsafe { bindings::vfio_pci_core_disable(core) };",
            "unsafe { &*(*self.core()).pdev.cast() }",
        ],
        "drivers/vfio/pci/vfio_pci_core.c": ["default: vfio_pci_touch(vdev);"],
    },
    "no emulated device maps a dma-buf of another one": {
        "drivers/vfio/pci/vfio_pci_dmabuf.c": ["vfio_pci_touch(priv->vdev);"],
    },
    "the PCI core loads each state that it has saved": {
        "drivers/vfio/pci/vfio_pci_core.c": [
            'pci_info(pdev, "%s: Couldn\'t reload saved state\\n", __func__);',
            "if (!vdev->reset_works || !answers)",
            "pci_save_state(pdev);",
        ],
    },
    "the driver looks before vfio-pci-core: the suite surprise-removal-c reaches it": {
        "drivers/vfio/pci/vfio_pci_core.c": ["pci_channel_io_perm_failure) { ret = -ENODEV;"],
    },
    "a race within microseconds, which the models of the reflck have": {
        "reflck/membership.rs": ["self.seat.wait(&mut members, Purpose::HotReset)?;"],
    },
    "a race within microseconds: a driver binds between two looks": {
        "bindings/helpers_pci.c": ["if (drv) strscpy(buf, drv->name, len);"],
    },
    "Debian's kernel has no iommufd, and the others have a table": {
        "reflck/event.rs": [
            'Self::Bind => c"bind",',
            'Self::Unbind => c"unbind",',
            'Self::Attach => c"attach",',
            'Self::Detach => c"detach",',
        ],
    },
    "derived": {"reflck/member.rs": ["Cleaning(Chore, usize),"]},
}

# The suites that enter the driver, and one with allocations that fail.
GUESTS = ("scenarios", "surprise-removal", "replay", "differential", "noiommu", "selftests")
FAULTS = Guest("faults", 600, command="{programs}/faults --driver vfio_pci_rs --every 5",
               kernel="debug", memory="1G", limit=3600)  # fmt: skip
SAVED = """sh -c '"$0" "$@"; status=$?
    cat /sys/kernel/debug/vfio_pci_rs_coverage >$RESULTS/coverage; exit $status' """


def tool(*command, text=None):
    """Returns the output of a program."""
    ended = subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, text=True)
    return ended.stdout


def areas(module):
    """Returns {section: (area, offset)} of a module's code, as the kernel lays it out."""
    ends, starts = {"text": 0, "init": 0}, {}
    for section, size, alignment in SECTION.findall(tool("readelf", "--wide", "-S", module)):
        area = "init" if section.startswith(".init") else "text"
        start = -(-ends[area] // int(alignment)) * int(alignment)
        starts[section], ends[area] = (area, start), start + int(size, 16)
    return starts


def blocks(disassembly):
    """Returns {section: {block: offsets of its instructions}}.

    A block begins with a call, and its name is the offset to which that returns. The first one of a
    function has the instructions before it, too. One that panics does not count.
    """
    found, section, block, offsets = defaultdict(dict), "", None, []
    for of, function, offset, call, panic in CODE.findall(disassembly):
        if offset:
            offsets.append(int(offset, 16))
        elif call:
            # The call itself is in the new block.
            offsets = [offsets.pop()] if block else offsets
            block = int(call, 16) + 4
            found[section][block] = offsets
        elif panic:
            found[section].pop(block, None)
        elif function:
            block, offsets = None, []
        section = of or section
    return found


def lines(module, section, offsets):
    """Returns {offset: ([(file, line)], copy)} of the driver's code, the innermost first.

    A copy of an inlined function is named by the places that it is inlined at.
    """
    command = ["addr2line", "-aiC", "-j", section, "-e", module]
    found = {}
    for part in re.split("^0x", tool(*command, text="\n".join(map(hex, offsets))), flags=re.M)[1:]:
        offset, *frames = part.splitlines()
        # Some have no line.
        places = ((place["file"], int(place["line"])) if place else None
                  for place in map(LINE.match, frames))  # fmt: skip
        ours = [(place, at) for at, place in enumerate(places, 1) if place and is_ours(*place)]
        copy = " ".join(frames[ours[0][1] :]) if ours else ""
        found[int(offset, 16)] = [place for place, _ in ours], copy
    return found


def is_ours(file, line):
    """Returns whether a line is the driver's, or one that the patches add."""
    is_ours = (REPO / file).exists() or line in added(file)
    return is_ours and not NO_CODE.match(text_of(file)[line - 1])


@cache
def core():
    """Returns a directory with the patched parts of VFIO, as in the kernel's source."""
    directory = Path(tempfile.mkdtemp())
    modules.patched_core(patches(), source())(directory, Steps("coverage"))
    return directory


@cache
def text_of(file):
    """Returns the lines of a file of the driver, or of the patched kernel."""
    path = REPO / file if (REPO / file).exists() else core() / file
    return list(map(str.strip, path.read_text().splitlines()))


@cache
def added(file):
    """Returns the numbers of the lines of a file of the kernel that the patches add."""
    only = ["--old-line-format=", "--unchanged-line-format=", "--new-line-format=%dn "]
    ended = subprocess.run(["diff", *only, source() / file, core() / file],
                           stdout=subprocess.PIPE, text=True)  # fmt: skip
    return set(map(int, ended.stdout.split()))


@cache
def code(module):
    """Returns {(area, offset): (place, copy, places)} of a module's blocks, by their calls.

    A place is (file, line): that of the call, or None, and those of all instructions.
    """
    starts, found = areas(module), {}
    for section, parts in blocks(tool("objdump", "-dr", module)).items():
        places = lines(module, section, sum(parts.values(), []))
        area, start = starts[section]
        for block, offsets in parts.items():
            every = {place for offset in offsets for place in places[offset][0]}
            # The call has five bytes.
            own, copy = places[block - 5]
            found[area, start + block] = next(iter(own), None), copy, every
    return found


class Coverage:
    """The blocks of the modules, and those that have run in any guest."""

    def __init__(self):
        self.blocks, self.ran = {}, set()

    def add(self, on, said):
        """Adds the records of a guest with the kernel `on`."""
        calls = {(on, of, area, int(at, 16)) for of, area, at in map(str.split, said.splitlines())}
        for name, file in MODULES.items():
            of = code(modules.modules(on, "coverage") / "updates" / file)
            self.blocks |= {(on, name, *call): places for call, places in of.items()}
        if not calls <= self.blocks.keys():
            raise Failure(f"a guest of {on} has recorded calls that the modules do not have")
        self.ran |= calls

    def report(self):
        """Returns a table of the files, the lines that have not run, and the share of lines."""
        every, done, branches = set(), set(), defaultdict(lambda: defaultdict(list))
        for call, (own, copy, places) in self.blocks.items():
            every |= places
            done |= places if call in self.ran else set()
            if own:
                branches[own][call[0], copy].append(call in self.ran)
        rows, sums = [], [0] * 4
        for of in sorted({file for file, _ in every}):
            # The copies of a function, and the modules of the kernels, have the same blocks.
            best = [max(copies.values(), key=lambda ran: sum(ran) / len(ran))
                    for (file, _), copies in branches.items() if file == of]  # fmt: skip
            numbers = (sum(file == of for file, _ in done), sum(file == of for file, _ in every),
                       sum(map(sum, best)), sum(map(len, best)))  # fmt: skip
            sums = [a + b for a, b in zip(sums, numbers, strict=True)]
            rows.append((of, *cells(numbers)))
        rows.append(("all", *cells(sums)))
        head = ("file", "lines", "%", "blocks", "%")
        said = [table.text(head, rows), *reasons(every - done)]
        return "\n".join(said) + "\n", 100 * len(done) / len(every)


def reasons(missing):
    """Yields lines about the places that have not run, by the reasons for that."""
    known = {(file, text): reason for reason, files in UNREACHED.items()
             for file, texts in files.items() for text in texts}  # fmt: skip
    found, unnamed = defaultdict(list), "for a reason that UNREACHED does not have"
    for file, line in sorted(missing):
        before, text = text_of(file)[line - 2 : line]
        keys = (file, f"{before} {text}"), (file, text)
        key = next((key for key in keys if key in known), None)
        found[known.pop(key, unnamed)].append(f"    {file}:{line}: {text}")
    found["it has, although UNREACHED names it"] = [f"    {file}: {text}" for file, text in known]
    for reason, places in found.items():
        yield from (f"Not run, {reason}:", *places)


def cells(numbers):
    lines, of_lines, blocks, of_blocks = numbers
    return (f"{lines}/{of_lines}", f"{100 * lines / of_lines:.0f}",
            f"{blocks}/{of_blocks}", f"{100 * blocks / max(of_blocks, 1):.0f}")  # fmt: skip


def recorded(suite):
    """Returns a suite that records the blocks which it runs, in the file `coverage`."""
    command = SAVED + suite.command
    return replace(suite, name=f"coverage-{suite.name}", modules="coverage", command=command)


def guests():
    by_name = {suite.name: suite for suite in suites.SUITES}
    return [recorded(suite) for suite in (*(by_name[name] for name in GUESTS), FAULTS)]


def main():
    coverage = Coverage()
    with check.results_of("coverage") as results:
        status = check.Run(guests(), results)()
        for suite in guests():
            file = results / suite.name / "coverage"
            if file.exists():
                coverage.add(suite.kernel, file.read_text())
        text, share = coverage.report()
        (results / "coverage.txt").write_text(text)
        print(text, f"It is in {shown(results / 'coverage.txt')}.", sep="")
    return status or share < LEAST
