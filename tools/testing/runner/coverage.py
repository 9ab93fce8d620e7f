# SPDX-License-Identifier: GPL-2.0
"""Which code of the driver the tests run: `make coverage`. Not part of `make check`.

Runs suites on a driver whose blocks of code each call ../coverage-module, and maps the calls that
were made to the lines of the source. Each way that a branch can take is a block, and an inlined
function has its blocks at each place that it is inlined at.
"""

import re
import subprocess
from collections import defaultdict
from dataclasses import replace

from . import Failure, check, shown, suites, table
from .kernel import WORK, kernel
from .kinds import Guest

CALL = re.compile(r"^([0-9a-f]+) .* __sanitizer_cov_trace_pc - 4$", re.M)
SECTION = re.compile(r"^ *\[ *\d+\] (\.\S+) +PROGBITS +\S+ \S+ (\S+) \S+ +AX\w* .* (\d+)$", re.M)
# Of the driver, without what bindgen has made.
LINE = re.compile(rf"{WORK}/coverage/(?P<file>(?:(?!generated)[\w/])+\.\w+):(?P<line>[1-9]\d*)")

# The suites that enter the driver, and one with allocations that fail.
GUESTS = ("scenarios", "surprise-removal", "differential", "selftests")
FAULTS = Guest("faults", command="{programs}/faults --driver vfio_pci_rs --every 5", kernel="debug",
               memory="1G", limit=3600)  # fmt: skip
SAVED = """sh -c '"$0" "$@"; status=$?
    cat /sys/kernel/debug/vfio_pci_rs_coverage >$RESULTS/coverage; exit $status' """


def read(module, section=None):
    """Returns what readelf prints of a module."""
    options = ["--relocs"] if section else ["--section-headers"]
    command = ["readelf", "--wide", *options, module]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def calls(module):
    """Returns {(area, offset): (section, offset there)} of a module's calls in all its blocks.

    The offsets are those at which the call returns. The kernel lays out the sections of each area
    in their order.
    """
    ends, starts = {"text": 0, "init": 0}, {}
    for section, size, alignment in SECTION.findall(read(module)):
        area = "init" if section.startswith(".init") else "text"
        start = -(-ends[area] // int(alignment)) * int(alignment)
        starts[section], ends[area] = (area, start), start + int(size, 16)
    found = {}
    for part in read(module, "relocations").split("\nRelocation section '.rela")[1:]:
        section = part.partition("'")[0]
        for offset in CALL.findall(part):
            area, start = starts[section]
            at = int(offset, 16) + 4
            found[area, start + at] = section, at
    return found


def lines(module, sites):
    """Returns {(section, offset): (file, line, function)} of the innermost code of the driver."""
    found = {}
    for section in {section for section, _ in sites}:
        # The call itself, not what follows it.
        offsets = [hex(at - 1) for of, at in sites if of == section]
        command = ["addr2line", "-afiC", "-j", section, "-e", module]
        said = subprocess.run(command, input="\n".join(offsets), check=True,
                              capture_output=True, text=True).stdout  # fmt: skip
        for part in re.split("^0x", said, flags=re.M)[1:]:
            offset, *frames = part.splitlines()
            places = zip(frames[1::2], frames[::2], strict=True)
            # Some have no line.
            ours = ((LINE.match(place), name) for place, name in places)
            place, name = next(((place, name) for place, name in ours if place), (None, None))
            if place:
                found[section, int(offset, 16) + 1] = place["file"], int(place["line"]), name
    return found


class Coverage:
    """Of each line how many of its blocks have run, in any guest."""

    def __init__(self):
        self.blocks, self.names = defaultdict(set), {}

    def add(self, on, said):
        """Adds what a guest with the kernel `on` has recorded."""
        module = kernel(on) / "work/coverage/vfio-pci-rs.ko"
        sites = calls(module)
        ran = {(area, int(at, 16)) for area, at in map(str.split, said.splitlines())}
        if not ran <= set(sites):
            raise Failure(f"the guest has recorded calls that {module.name} does not have")
        places = lines(module, set(sites.values()))
        for call, site in sites.items():
            if site in places:
                file, line, name = places[site]
                self.blocks[file, line].add((on, site, call in ran))
                self.names[file, line] = name

    def text(self):
        """Returns a table of the files, and the lines that have not run."""
        rows, missing, sums = [], [], [0] * 4
        for file in sorted({file for file, _ in self.blocks}):
            of = {line: blocks for (name, line), blocks in self.blocks.items() if name == file}
            done = [line for line, blocks in of.items() if any(ran for *_, ran in blocks)]
            # A block of one kernel's module is a block of the other's, though elsewhere.
            best = [max(share(blocks, on) for on in {on for on, *_ in blocks})
                    for blocks in of.values()]  # fmt: skip
            numbers = len(done), len(of), sum(ran for ran, _ in best), sum(all_ for _, all_ in best)
            sums = [a + b for a, b in zip(sums, numbers, strict=True)]
            rows.append((file, *cells(numbers)))
            for line in sorted(set(of) - set(done)):
                missing.append(f"{file}:{line}: {self.names[file, line]}")
        rows.append(("all", *cells(sums)))
        head = ("file", "lines", "%", "blocks", "%")
        return "\n".join([table.text(head, rows), "Not run:", *missing, ""])


def share(blocks, on):
    """Returns how many blocks of a kernel's module have run, and how many there are."""
    ran = [ran for of, _, ran in blocks if of == on]
    return sum(ran), len(ran)


def cells(numbers):
    lines, of_lines, blocks, of_blocks = numbers
    return (f"{lines}/{of_lines}", f"{100 * lines / of_lines:.0f}",
            f"{blocks}/{of_blocks}", f"{100 * blocks / of_blocks:.0f}")  # fmt: skip


def main():
    by_name = {suite.name: suite for suite in suites.SUITES}
    coverage, failed = Coverage(), 0
    with check.results_of("coverage") as results:
        for suite in (*(by_name[name] for name in GUESTS), FAULTS):
            on = "debug" if suite is FAULTS else "perf"
            command = SAVED + suite.command
            suite = replace(suite, modules="coverage", kernel=on, command=command)
            directory, failures = check.run_in(results, suite)
            failed += failures
            coverage.add(on, (directory / "coverage").read_text())
        (results / "coverage.txt").write_text(coverage.text())
        print(coverage.text(), f"It is in {shown(results / 'coverage.txt')}.", sep="")
    return 1 if failed else 0
