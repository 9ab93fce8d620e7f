# SPDX-License-Identifier: GPL-2.0
"""The kinds of suites: what each needs, its inputs, and how it comes to its results.

A suite that passed is not run again while its inputs stay the same. Suites on vfio-pci have no
source of the driver among their inputs.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from . import (
    ARCH, REPO, TESTING, Failure, arm64, events, ktap, machine, modules, packages, programs, report,
    table, topology, vm,
)  # fmt: skip
from .artifact import recipe
from .guest_selftests import SKIPPED
from .results import Result, wrong

SELFTESTS = "tools/testing/runner/guest_selftests.py"


def build(need):
    """Builds an artefact: the function ("programs",) or its like, or ("modules", KERNEL, SET)."""
    owners = {"modules": modules, "machine": machine, "plain": machine, "packages": packages}
    owner = owners.get(need[0], programs)
    return getattr(owner, need[0])(*need[1:])


@dataclass(frozen=True)
class Suite:
    """Tests with one line in the report. `cost` is about how many seconds they take."""

    name: str
    cost: int = 1
    # Suites whose results this one reads.
    after: tuple = ()

    def longer(self):
        return self

    def needs(self):
        """Returns the artefacts to build, see build()."""
        return ()

    def build(self):
        """Builds what the suite needs, and returns {need: path}."""
        return {need: build(need) for need in self.needs()}

    def inputs(self, made):
        """Returns the inputs of artifact.key(), or None for a suite that runs always."""
        return None

    def run(self, directory, made, output=None):
        """Runs the tests, which leave their files in the empty directory, and returns Results.

        made: {need: path}. output: a function that gets what a guest's command prints.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Guest(Suite):
    """A command in a virtual machine. Its results are the events and the TAP that it leaves."""

    topology: str = "scenarios"
    # {programs}, {selftests} and the names of module sets in braces stand for directories.
    command: str = ""
    long: str = ""
    kernel: str = "debian"
    modules: str = "rs"
    memory: str | None = None
    # Arguments of the kernel, which the long form is without.
    arguments: tuple = ()
    limit: int = 1800
    # judge(directory, outcome) -> Results, for a guest that is to find a defect.
    judge: Callable | None = None
    # The functions behind line().
    booted_by = (arm64.line, machine.qemu) if ARCH else (vm.virtme, vm.sandbox)

    def longer(self):
        command = self.long or self.command
        return replace(self, command=command, arguments=(), limit=self.limit * 8)

    def needs(self):
        named = dict.fromkeys([*re.findall(r"\{([\w+-]+)\}", self.command), self.modules])
        return tuple(
            (name,) if name in ("programs", "selftests") else ("modules", self.kernel, name)
            for name in named
        )

    def inputs(self, made):
        # Not all programs: a change of one does not concern guests that run another.
        named = (word for word in shlex.split(self.command) if word.startswith("{programs}/"))
        programs = [made["programs",] / word.removeprefix("{programs}/") for word in named]
        return [
            self.command, repr((self.memory, self.arguments)),
            repr((vm.KERNEL_ARGUMENTS, vm.SPLATS.pattern)),
            topology.load(self.topology).description(),
            recipe(*self.booted_by, vm.splats, collect, self.judge or kernel_log),
            TESTING / "guest-init", TESTING / "guest-udevadm",
            *([REPO / SELFTESTS] if SELFTESTS in self.command else []),
            *([TESTING / "machine"] if " -m machine " in self.command else []),
            *(hashlib.sha256(program.read_bytes()).hexdigest() for program in programs),
            *(str(path) for need, path in made.items() if need != ("programs",)),
        ]  # fmt: skip

    def line(self, devices, made, directory):
        modset = made["modules", self.kernel, self.modules]
        line = arm64.line if ARCH else vm.line
        return line(devices, modset, directory, self.memory, self.arguments)

    def run(self, directory, made, output=None):
        # Of a set, modprobe takes the directory with lib/.
        places = {need[-1]: path.parents[2] if need[1:] else path for need, path in made.items()}
        command = [word.format(**places) for word in shlex.split(self.command)]
        devices = topology.load(self.topology)
        line = self.line(devices, made, directory)
        outcome = vm.boot(line, devices, command, directory, self.limit, output)
        if self.judge:
            return self.judge(directory, outcome)
        results = collect(directory)
        return [*results, kernel_log(outcome, results)]


@dataclass(frozen=True)
class Machine(Guest):
    """Tests of TESTING/machine in a Debian with systemd."""

    topology: str = "tools"
    booted_by = (machine.qemu, machine.sandbox)

    def needs(self):
        return ("machine",), ("modules", self.kernel, self.modules)

    def line(self, devices, made, directory):
        root, binds, kernel = self.layers(made)
        return [*machine.sandbox(root, directory, binds), *machine.qemu(devices, kernel)]

    def layers(self, made):
        """Returns the root, the directories that replace parts of it, and the kernel."""
        modset = made["modules", self.kernel, self.modules]
        return made["machine",], {"usr/lib/modules": modset.parent}, modset / "vmlinuz"


@dataclass(frozen=True)
class Plain(Machine):
    """A machine that has the kernel's own modules, and our packages at hand."""

    def needs(self):
        return ("plain",), ("packages",)

    def layers(self, made):
        root = made["plain",]
        [kernel] = root.glob("boot/vmlinuz-*")
        return root, {"mnt": made["packages",]}, kernel


def kernel_log(outcome, results):
    """Returns whether a guest came to its end and its kernel found nothing wrong."""
    complaints = outcome.complaints()
    # Tests that failed are results of their own; without one, something else went wrong.
    if not complaints and outcome.status and all(result.passed() for result in results):
        complaints = [f"the command ended with status {outcome.status}, see output.log"]
    return wrong("kernel log", complaints[:20])


def collect(directory):
    """Returns the Results of a guest's files: *.events.jsonl, and *.tap with *.status."""
    programs = [events.results(path) for path in sorted(directory.glob("*.events.jsonl"))]
    return sum(programs, []) + [selftest(path) for path in sorted(directory.glob("*.tap"))]


def selftest(path):
    text, status = path.read_text(errors="replace"), path.with_suffix(".status")
    code = int(status.read_text()) if status.exists() else None
    tests, errors = ktap.read(text)
    if code == SKIPPED and not tests:
        return Result(path.stem, None, text.strip().rpartition("\n")[2].removeprefix("# "))
    complaints = [f"the results are not complete: {error}" for error in errors]
    if code is None:
        complaints.append("the program did not end")
    elif code and not complaints and all(test.passed() for test in tests):
        complaints.append(f"no test failed, and the program ended with status {code}")
    if complaints:
        tests.append(wrong("runs to its end", complaints + text.splitlines()[-10:]))
    return Result(path.stem, all(test.passed() for test in tests), "", tests)


def passed(directory):
    """Returns the paths of the tests in a guest's files that passed."""
    leaves = (leaf for result in collect(directory) for leaf in result.leaves())
    return {path for path, leaf in leaves if leaf.ok}


@dataclass(frozen=True)
class Same(Suite):
    """Compares the observations of two guests, a test a scenario."""

    def run(self, directory, made, output=None):
        found = (directory.parent / name for name in self.after)
        one, other, *_ = (events.observations(*path.glob("*.events.jsonl")) for path in found)
        return events.compare(one, other)


@dataclass(frozen=True)
class SameTools(Same):
    """Compares the first two of some Machines, and leaves the table of all their observations."""

    def run(self, directory, made, output=None):
        files = [directory.parent / name / "tools.events.jsonl" for name in self.after]
        columns = [
            {test: ", ".join(map(": ".join, seen.items())) for test, seen in tests.items()}
            for tests in (events.observations(file, only_compared=False) for file in files)
        ]
        rows = [(test, *(column.get(test, "") for column in columns)) for test in columns[0]]
        (directory / "tools.txt").write_text(table.text(("test", *self.after), rows))
        return super().run(directory, made)


@dataclass(frozen=True)
class AsGood(Suite):
    """Checks that the tests that passed in the second run passed in the first one."""

    def run(self, directory, made, output=None):
        one, other = (passed(directory.parent / name) for name in self.after)
        if not other:
            raise Failure(f"looked for results of {self.after[1]}")
        worse = sorted(": ".join(path) for path in other - one)
        return [wrong("what passes on vfio-pci passes on vfio_pci_rs", worse)]


@dataclass(frozen=True)
class Host(Suite):
    """A module of the runner with tests of the host: results() returns Results."""

    module: object = None
    # Arguments of results() in the long form.
    long: dict = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)

    def longer(self):
        return replace(self, arguments=self.long or self.arguments)

    def inputs(self, made):
        inputs = getattr(self.module, "inputs", None)
        return [repr(self.arguments), *inputs()] if inputs else None

    def run(self, directory, made, output=None):
        return self.module.results(**self.arguments)


@dataclass(frozen=True)
class Kunit(Guest):
    """A guest whose kernel ran the driver's KUnit suites at boot."""

    def run(self, directory, made, output=None):
        results = super().run(directory, made, output)
        tests, errors = ktap.read((directory / "dmesg.log").read_text(errors="replace"))
        sources = (file.read_text() for file in (REPO / "reflck").rglob("*.rs"))
        suites = {name for text in sources for name in re.findall(r"kunit_tests\((\w+)\)", text)}
        ours = [test for test in tests if test.name in suites]
        missing = suites.difference(test.name for test in ours)
        errors += [f"the suite {name} did not run" for name in sorted(missing)]
        return [*results, *ours, wrong("KUnit is complete", errors)]


@dataclass(frozen=True)
class Bench(Guest):
    """A guest of the benchmark, and the report of what it measured."""

    def run(self, directory, made, output=None):
        results = super().run(directory, made, output)
        measured = directory / "bench.json"
        if measured.exists():
            report.write([json.loads(measured.read_text())], directory)
        return [*results, Result("the report can be made", measured.exists())]
