# SPDX-License-Identifier: GPL-2.0
"""The table of suites, and how each comes to its results.

A suite that passed is not run again while its inputs stay the same. Suites on vfio-pci have no
source of the driver among their inputs.
"""

import hashlib
import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import CACHE, TESTING, Failure, defects, kernel, ktap, report, vm
from .artifact import artifact, recipe
from .guest_selftests import KERNELS, SKIPPED
from .ktap import Result

SELFTESTS = "tools/testing/runner/guest_selftests.py"


@dataclass(frozen=True)
class Suite:
    """Tests with one line in the report. `cost` is about how many seconds they take."""

    name: str
    cost: int = 1
    # Suites whose results this one reads.
    after: tuple = ()
    # Part of check-all only.
    only_long: bool = False

    def needs(self, long):
        """Returns the artefacts to build: (a function of kernel, its arguments...)."""
        return ()

    def inputs(self, made, long):
        """Returns the inputs of artifact.key(), or None for a suite that runs always."""
        return None

    def run(self, directory, made, long):
        """Runs the tests, with an empty directory for all that they leave; returns Results.

        made: {need: path}.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Guest(Suite):
    """A command in a virtual machine. Its results are the events and the TAP that it leaves."""

    topology: str = "scenarios"
    # {programs}, {selftests} and {sets} stand for directories.
    command: str = ""
    long: str = ""
    kernel: str = "debian"
    modules: str = "rs"
    memory: str | None = None
    limit: int = 1800
    # judge(directory, outcome) -> Results, for a guest that is to find a defect.
    judge: Callable | None = None

    def line(self, long):
        return self.long if long and self.long else self.command

    def needs(self, long):
        line = self.line(long)
        named = [need for need in ("programs", "selftests") if f"{{{need}}}" in line]
        sets = [
            ("modules", self.kernel, modset) for modset in BENCH_SETS.values() if "{sets}" in line
        ]
        return (*((need,) for need in named), ("modules", self.kernel, self.modules), *sets)

    def inputs(self, made, long):
        line = self.line(long)
        # Not all programs: a change of one does not concern guests that run another.
        programs = [
            made["programs",] / word[11:]
            for word in shlex.split(line)
            if word.startswith("{programs}/")
        ]
        sources = [TESTING / SELFTESTS.split("testing/")[1]] if SELFTESTS in line else []
        return [
            line, repr((self.memory, vm.KERNEL_ARGUMENTS, vm.SPLATS.pattern)),
            vm.topology(self.topology).description(),
            recipe(vm.virtme, vm.sandbox, vm.splats, collect, self.judge or kernel_log),
            TESTING / "guest-init", TESTING / "guest-udevadm", *sources,
            *(hashlib.sha256(program.read_bytes()).hexdigest() for program in programs),
            *(str(path) for need, path in made.items() if need != ("programs",)),
        ]  # fmt: skip

    def run(self, directory, made, long, output=None):
        places = {
            need[0]: path for need, path in made.items() if need[0] in ("programs", "selftests")
        }
        if "{sets}" in self.line(long):
            places["sets"] = bench_sets(
                {name: made["modules", self.kernel, modset] for name, modset in BENCH_SETS.items()}
            )
        words = [substitute(word, places) for word in shlex.split(self.line(long))]
        outcome = vm.run(
            vm.topology(self.topology), made["modules", self.kernel, self.modules], words,
            directory, memory=self.memory, time_limit=self.limit * (8 if long else 1),
            output=output,
        )  # fmt: skip
        if self.judge:
            return self.judge(directory, outcome)
        results = collect(directory)
        return results + [kernel_log(outcome, results)]


def substitute(word, places):
    """Returns `word` with the paths of `places` for their {NAMES}."""
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word


def kernel_log(outcome, results):
    """Returns whether a guest came to its end and its kernel found nothing wrong."""
    complaints = outcome.complaints()
    # Tests that failed are results of their own; without one, something else went wrong.
    if not complaints and outcome.status and all(result.passed() for result in results):
        complaints = [f"the command ended with status {outcome.status}, see output.log"]
    return Result("kernel log", not complaints, "\n".join(complaints[:20]))


def collect(directory):
    """Returns the Results of what a guest left: *.events.jsonl, and *.tap with *.status."""
    results = []
    for path in sorted(directory.glob("*.events.jsonl")):
        results += ktap.from_events(path)
    for path in sorted(directory.glob("*.tap")):
        results.append(selftest(path))
    return results


def selftest(path):
    """Returns the Result of a selftest's output."""
    name, text = path.stem, path.read_text(errors="replace")
    status = path.with_suffix(".status")
    code = int(status.read_text()) if status.exists() else None
    tests, _, errors = ktap.read(text)
    if code == SKIPPED and not tests:
        return Result(name, None, text.strip().rpartition("\n")[2].removeprefix("# "))
    # A result that is missing is a test without a name.
    tests = [test for test in tests if test.name]
    wrong = [f"the results are not complete: {error}" for error in dict.fromkeys(errors)]
    if code is None:
        wrong.append("the program did not end")
    elif code and not wrong and all(test.passed() for test in tests):
        wrong.append(f"no test failed, and the program ended with status {code}")
    if wrong:
        tests.append(
            Result("runs to its end", False, "\n".join([*wrong, *text.splitlines()[-10:]]))
        )
    return Result(name, not wrong and all(test.passed() for test in tests), "", tests)


@dataclass(frozen=True)
class Same(Suite):
    """Compares the observations of two guests, a test a scenario."""

    def run(self, directory, made, long):
        one, other = (
            ktap.observations(seen / "scenarios.events.jsonl") for seen in self.of(directory)
        )
        return ktap.compare(one, other)

    def of(self, directory):
        """Returns the directories of the suites that this one compares."""
        return [directory.parent / name for name in self.after]


@dataclass(frozen=True)
class AsGood(Same):
    """Checks that the tests that passed in the second run passed in the first one."""

    def run(self, directory, made, long):
        one, other = (
            {path: leaf for result in collect(seen) for path, leaf in result.leaves()}
            for seen in self.of(directory)
        )
        worse = [
            path for path, leaf in other.items() if leaf.ok and not (path in one and one[path].ok)
        ]
        if not other:
            raise Failure(f"looked for results in {self.of(directory)[1]}")
        return [
            Result(
                "what passes on vfio-pci passes on vfio_pci_rs",
                not worse,
                "\n".join(map(": ".join, worse)),
            )
        ]


@dataclass(frozen=True)
class Host(Suite):
    """A module of the runner with tests of the host: results(long) returns Results."""

    module: str = ""

    def run(self, directory, made, long):
        return [Result.of(result) for result in _host(self.module).results(long)]

    def inputs(self, made, long):
        inputs = getattr(_host(self.module), "inputs", None)
        return [repr(long), *inputs(long)] if inputs else None


def _host(name):
    return importlib.import_module(f"{__package__}.{name}")


@dataclass(frozen=True)
class Kunit(Guest):
    """A guest whose kernel ran the driver's KUnit suite at boot."""

    def run(self, directory, made, long, output=None):
        results = super().run(directory, made, long, output)
        log = (directory / "dmesg.log").read_text(errors="replace")
        tests, counts, errors = ktap.read(ktap.kunit(log, "vfio_pci_rs_reflck"))
        return results + [
            *tests,
            Result("KUnit is complete", not errors and counts.passed > 0, "\n".join(errors)),
        ]


@dataclass(frozen=True)
class Bench(Guest):
    """A guest of the benchmark, and the report of what it measured."""

    def run(self, directory, made, long, output=None):
        results = super().run(directory, made, long, output)
        measured = directory / "bench.json"
        if measured.exists():
            report.write([json.loads(measured.read_text())], directory, "one guest")
        return [*results, Result("the report can be made", measured.exists())]


# The drivers that the benchmark compares with vfio_pci_rs, and the sets that have them.
BENCH_SETS = {"c": "stock", "global-mutex": "rs+global-mutex"}


def bench_sets(sets):
    """Returns a directory with a link NAME for each set, which `modprobe -d` takes."""

    def link(new, run):
        for name, modules in sets.items():
            (new / name).symlink_to(Path(modules).parents[2])

    return artifact("bench-sets", [repr(sorted(sets.items()))], link)


def bench(guest, charts, cost=60, options="", **settings):
    """Returns the guest of the benchmark that makes `charts`, on the topology bench-GUEST."""
    command = "{programs}/bench --sets {sets} --selftests {selftests}"
    return Bench(
        f"bench-{guest}", cost, command=f"{command} --only {charts} {options}".rstrip(),
        topology=f"bench-{guest}", kernel="perf", **settings,
    )  # fmt: skip


def scenarios(name, cost, driver="vfio_pci_rs", options="", **settings):
    """Returns the guest that runs scenarios."""
    return Guest(
        name,
        cost,
        command=f"{{programs}}/scenarios --driver {driver} {options}".rstrip(),
        **settings,
    )


def selftests(name, cost, programs, driver="vfio_pci_rs", **settings):
    """Returns the guest that runs selftests, on the kernel perf, which has iommufd.

    Settings: `long`, the programs of the long form, and `rounds` and `long_rounds` of each form.
    """
    modset = "rs" if driver == "vfio_pci_rs" else "core"
    base = f"python3 {SELFTESTS} {driver} {{selftests}}"

    def line(chosen, rounds):
        return f"env VFIO_PCI_RS_ROUNDS={rounds} {base} {chosen}" if rounds else f"{base} {chosen}"

    rounds = settings.pop("rounds", None)
    long = line(settings.pop("long", programs), settings.pop("long_rounds", rounds))
    settings = {"kernel": "perf", "modules": modset, "long": long} | settings
    return Guest(name, cost, command=line(programs, rounds), **settings)


# Those of the kernel's own selftests that enter code of the driver; the others test vfio-pci-core
# and the IOMMU.
ENTERING = (
    "vfio_pci_device_test vfio_pci_sriov_uapi_test "
    "vfio_pci_device_init_perf_test vfio_iommufd_setup_test"
)
ALL = " ".join(KERNELS)
OURS = "vfio_pci_rs_test device_test hot_reset_test sriov_test"
# On the debug kernel, the less memory there is, the less the checkers scan.
DEBUG = {"kernel": "debug", "memory": "1G", "limit": 3600}
# In one guest, whose boot takes as long as either: scenarios, and allocations that fail.
DEBUGGED = """sh -c '"$0" --driver vfio_pci_rs {only}; status=$?
        "$1" --driver vfio_pci_rs {every} && exit $status'
    {{programs}}/scenarios {{programs}}/faults"""

# Things are built in the order in which this table needs them.
SUITES = (
    scenarios("scenarios", 100),
    scenarios("scenarios-c", 100, "vfio-pci", modules="stock"),
    scenarios("scenarios-patched-core", 100, "vfio-pci", modules="core"),
    Same("vfio_pci_rs-does-as-vfio-pci", after=("scenarios", "scenarios-c")),
    Same("patched-core-does-as-stock", after=("scenarios-patched-core", "scenarios-c")),
    Guest(
        "debug", 600, command=DEBUGGED.format(only="--rounds 2", every="--every 20"),
        long=DEBUGGED.format(only="", every=""), **DEBUG,
    ),
    selftests("debug-selftests", 500, "vfio_pci_rs_test", long=OURS, rounds=2, **DEBUG),
    # A lock inversion and a leak, which the debug kernel has to report.
    selftests(
        "defects-reported", 400, "vfio_pci_rs_test.last_release",
        **DEBUG | {"modules": "rs+lock-inversion+leak"}, judge=defects.reported,
    ),
    Guest(
        "differential", 150, topology="differential", kernel="perf",
        command="{programs}/differential --brief --seeds 1 --calls 300",
        long="{programs}/differential",
    ),
    # Wrong answers, each of which the fixed scripts and random calls must find.
    Guest(
        "defect-differs", 60, topology="differential", kernel="perf",
        modules="rs+wrong-answer+foreign-owned+wrong-bind-error",
        command="{programs}/differential --brief --only igb,slot --mode cdev --seeds 2 --calls 300 "
        "--finds '*HOT_RESET, *: Error(EINVAL) Error(EPERM)*' --finds '*HOT_RESET_INFO, *' "
        "--finds '*BIND_IOMMUFD, *: Error(EPERM) Error(EBUSY)*'",
    ),
    selftests("kernel-selftests", 60, ENTERING, long=ALL, topology="selftests"),
    selftests("kernel-selftests-c", 60, ENTERING, "vfio-pci", long=ALL, topology="selftests"),
    AsGood("kernel-selftests-as-good", after=("kernel-selftests", "kernel-selftests-c")),
    selftests("selftests", 350, OURS, long_rounds=100),
    selftests("selftests-c", 350, OURS, "vfio-pci", long_rounds=100),
    selftests("noiommu", 20, "noiommu_test", topology="noiommu", memory="1G"),
    selftests("noiommu-c", 20, "noiommu_test", "vfio-pci", topology="noiommu", memory="1G"),
    bench("bus", "bus,selftest,data_path", options="--rounds 1"),
    Kunit(
        "builtin", 30, kernel="builtin",
        command=f"python3 {SELFTESTS} vfio_pci_rs {{selftests}} vfio_pci_rs_test.last_release "
        "vfio_pci_rs_test.foreign_function vfio_pci_rs_test.unbind_while_open",
    ),
    Host("unit", 30, module="unit"),
    Host("lint", 60, module="lint"),
    Host("models", 200, module="models"),
)  # fmt: skip


def default_kernel():
    """Returns perf, which boots in seconds, if it has been built."""
    return "perf" if list(CACHE.glob("kernel-perf-????????????")) else "debian"


def own_selftests():
    """Returns {program: names of its tests} of the driver's selftests."""
    pattern = re.compile(r"^TEST\w*\((?:\w+, )?(\w+)", re.MULTILINE)
    sources = sorted((TESTING / "selftests/vfio_pci_rs").glob("*_test.c"))
    return {path.stem: list(dict.fromkeys(pattern.findall(path.read_text()))) for path in sources}


def by_name(name, on, driver):
    """Returns the suite for a scenario, a test of a selftest, a selftest, or a suite.

    A selftest is PROGRAM or PROGRAM.TEST; the driver's own tests also go by their names alone.
    """
    suites, own = {suite.name: suite for suite in SUITES}, own_selftests()
    if name in suites:
        return suites[name]
    homes = [program for program, tests in own.items() if name in tests]
    chosen = f"{homes[0]}.{name}" if homes else name
    program = chosen.partition(".")[0]
    on = on or ("perf" if program in KERNELS else default_kernel())
    modset = "rs" if driver == "vfio_pci_rs" else "stock" if on == "debian" else "core"
    if program in KERNELS or program in own:
        topologies = {"noiommu_test": "noiommu"} | dict.fromkeys(KERNELS, "selftests")
        topology = topologies.get(program, "scenarios")
        return selftests(name, 0, chosen, driver, kernel=on, modules=modset, topology=topology)
    listed = subprocess.run(
        [kernel.programs() / "scenarios", "--list"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    if name in listed:
        return scenarios(name, 0, driver, f"--only {name}", kernel=on, modules=modset)
    tests = "".join(f"\n  {program}: {' '.join(names)}" for program, names in own.items())
    raise Failure(
        f"there is no test '{name}'. There are\n  scenarios: {' '.join(listed)}{tests}\n"
        f"  the kernel's selftests: {' '.join(KERNELS)}\n  suites: {' '.join(suites)}"
    )
