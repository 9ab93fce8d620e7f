# SPDX-License-Identifier: GPL-2.0
"""`make check`, `make check-all`, and single tests by name.

Owns the order in which suites run, what is cached of them, and the report.
"""

import contextlib
import heapq
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import Future

from . import CACHE, Failure, kernel, ktap, shown, table, vm
from .artifact import artifact, locked, remove, say

# A guest has two processors and mostly waits for its devices' resets. More guests would want more
# memory than the time they save is worth.
GUESTS_AT_ONCE = min(os.cpu_count(), 4)
BUILD_FIRST = 10**6


class Slots:
    """Room for some jobs at a time. Of those that wait, the most costly one comes first."""

    def __init__(self, count):
        self.free = count
        self.waiting = []
        self.changed = threading.Condition()
        self.number = 0

    @contextlib.contextmanager
    def take(self, cost):
        with self.changed:
            self.number += 1
            ticket = (-cost, self.number)
            heapq.heappush(self.waiting, ticket)
            self.changed.wait_for(lambda: self.free and self.waiting[0] == ticket)
            heapq.heappop(self.waiting)
            self.free -= 1
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self.free += 1
                self.changed.notify_all()


class NotPassed(Exception):
    """A suite has failed: its results are not kept."""


class Report:
    """What came of the suites: prints a line for each as it ends, and counts."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lines = []
        self.lock = threading.Lock()
        self.start = time.monotonic()

    def add(self, name, totals, seconds, cached):
        with self.lock:
            self.passed += totals.passed
            self.failed += totals.failed
            self.skipped += totals.skipped
            took = "cached" if cached else f"{seconds:.1f} s"
            ended = time.monotonic() - self.start
            self.lines.append(
                (name, took, f"{ended - (0 if cached else seconds):.0f}", f"{ended:.0f}")
            )
            print(
                f"{name}: {totals.passed} passed, {totals.failed} failed, "
                f"{totals.skipped} skipped ({took})"
            )
            for line in totals.failures:
                print(f"    {line}")
            for skip, count in sorted(totals.skips.items()):
                print(f"    skipped: {skip}{f' ({count} times)' if count > 1 else ''}")
            sys.stdout.flush()

    def end(self, results):
        """Prints the totals, writes where the time went, and returns the exit status."""
        seconds = time.monotonic() - self.start
        times = table.text(("suite", "took", "from", "to"), self.lines)
        (results / "times.txt").write_text(times)
        what = (
            f"{self.failed} tests have failed" if self.failed else "Every test that ran has passed"
        )
        print(
            f"{what}, after {seconds:.0f} s; the logs, and times.txt with where the time went, "
            f"are in {shown(results)}."
        )
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed or not self.passed else 0


class Run:
    """One run of suites, each in a thread of its own that waits for what it needs."""

    def __init__(self, suites, long, results, builders=None, slots=None):
        self.suites, self.long, self.results = suites, long, results
        self.builders = builders or vars(kernel)
        self.slots = slots or Slots(GUESTS_AT_ONCE)
        self.report = Report()
        self.done = {suite.name: threading.Event() for suite in suites}
        self.made = {need: Future() for suite in suites for need in suite.needs(long)}

    def __call__(self):
        threads = [threading.Thread(target=self.build, daemon=True)]
        threads += [
            threading.Thread(target=self.work, args=[suite], daemon=True) for suite in self.suites
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.report.end(self.results)

    def build(self):
        """Builds what the suites need, in the order of the table, one thing after the other."""
        with self.slots.take(BUILD_FIRST):
            for need, future in self.made.items():
                try:
                    future.set_result(self.builders[need[0]](*need[1:]))
                except Exception as error:
                    future.set_exception(error)

    def work(self, suite):
        start, cached = time.monotonic(), False
        directory = self.results / suite.name
        try:
            made = {need: self.made[need].result() for need in suite.needs(self.long)}
            for name in suite.after:
                if name in self.done:
                    self.done[name].wait()
            start, cached = self.execute(suite, made, directory)
        except NotPassed as failed:
            start = failed.args[0]
        except Exception as error:
            # A test that cannot be run has failed.
            directory.mkdir(parents=True, exist_ok=True)
            ktap.write(directory / "suite.ktap", [("can be run", False, describe(error))])
        try:
            self.report.add(
                suite.name, ktap.parse(directory / "suite.ktap"), time.monotonic() - start, cached
            )
        finally:
            self.done[suite.name].set()

    def execute(self, suite, made, directory):
        """Runs a suite unless it passed on the same inputs. Returns (start, cached)."""
        began = None

        def run(new, _):
            nonlocal began
            with self.slots.take(suite.cost) if suite.cost > 1 else contextlib.nullcontext():
                began = time.monotonic()
                if suite.cost > 1:
                    say(f"  {suite.name} ...")
                remove(directory)
                directory.mkdir(parents=True)
                results = suite.run(directory, made, self.long)
                ktap.write(directory / "suite.ktap", results)
            if ktap.parse(directory / "suite.ktap").failed:
                raise NotPassed(began)
            if new:
                shutil.copytree(directory, new, dirs_exist_ok=True)

        inputs = suite.inputs(made, self.long)
        if inputs is None:
            run(None, None)
            return began, False
        kept = artifact(f"passed-{suite.name}", inputs, run)
        if began is None:
            remove(directory)
            directory.symlink_to(os.path.relpath(kept, directory.parent))
        return began or time.monotonic(), began is None


def describe(error):
    """Returns the text of an exception: a Failure's sentence and the end of its log."""
    import traceback

    if isinstance(error, Failure):
        return "\n".join([str(error), *error.end_of_output()])
    return "".join(traceback.format_exception(error))


def print_bytes(new):
    """Prints what a guest's command printed."""
    sys.stdout.buffer.write(new)
    sys.stdout.buffer.flush()


def stop_on_signals():
    """Ends the process at once: the guests are in its namespace, and end with it."""
    for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
        signal.signal(number, lambda number, _: os._exit(128 + number))


def check(long):
    """Runs every test."""
    from . import suites

    stop_on_signals()
    results = CACHE / "results" / ("check-all" if long else "check")
    with locked(results.name):
        remove(results)
        results.mkdir(parents=True)
        say(f"Everything is in {shown(CACHE)}, and made there if it is missing.")
        return Run(
            [suite for suite in suites.SUITES if long or not suite.only_long], long, results
        )()


def test(name, on, driver):
    """Runs one scenario, one selftest (PROGRAM or PROGRAM.TEST), or one suite."""
    from . import suites

    stop_on_signals()
    guest = suites.by_name(name, on, driver)
    results = CACHE / "results/test"
    with locked("test"):
        remove(results)
        results.mkdir(parents=True)
        made = {need: getattr(kernel, need[0])(*need[1:]) for need in guest.needs(False)}
        start = time.monotonic()
        output = {"output": print_bytes} if isinstance(guest, suites.Guest) else {}
        ktap.write(results / "suite.ktap", guest.run(results, made, False, **output))
        totals = ktap.parse(results / "suite.ktap")
    for line in totals.failures:
        print(f"    {line}")
    where = f" on {driver}, kernel {guest.kernel}" if isinstance(guest, suites.Guest) else ""
    print(
        f"{name}: {totals.passed} checks passed, {totals.failed} failed, "
        f"{totals.skipped} skipped{where} "
        f"({time.monotonic() - start:.0f} s; logs are in {shown(results)})."
    )
    return 1 if totals.failed else 0


def machine(arguments):
    """Runs a command in a guest."""
    stop_on_signals()
    results = CACHE / "results/vm"
    remove(results)
    results.mkdir(parents=True)
    modules = kernel.modules(arguments.kernel, arguments.modules)
    end = vm.run(
        vm.topology(arguments.topology), modules, arguments.argv, results,
        arguments.cpus, arguments.memory, arguments.time_limit, print_bytes,
    )  # fmt: skip
    for complaint in end.complaints():
        say(f"vm: {complaint}")
    say(f"vm: what the guest left is in {shown(results)}")
    return 2 if end.complaints() else end.status


def add_parser(subparsers):
    parser = subparsers.add_parser("check", help="run every test")
    parser.set_defaults(run=lambda arguments: check(False))
    parser = subparsers.add_parser("check-all", help="run every test, in its long form")
    parser.set_defaults(run=lambda arguments: check(True))

    parser = subparsers.add_parser("test", help="run one scenario, selftest or suite by its name")
    parser.add_argument(
        "name", nargs="?", default="", help="without one that exists: lists the names"
    )
    parser.add_argument(
        "--kernel", choices=kernel.KERNELS, help="default: perf if it has been built, else debian"
    )
    parser.add_argument("--driver", default="vfio_pci_rs", choices=("vfio_pci_rs", "vfio-pci"))
    parser.set_defaults(
        run=lambda arguments: test(arguments.name, arguments.kernel, arguments.driver)
    )

    parser = subparsers.add_parser(
        "vm", help="run a command in a virtual machine; it finds its results at $RESULTS"
    )
    parser.add_argument(
        "--topology", default="scenarios", help=f"one of {', '.join(vm.topologies()[0])}"
    )
    parser.add_argument("--kernel", default="debian", choices=kernel.KERNELS)
    parser.add_argument(
        "--modules", default="rs", help="stock, core, rs or rs+DEFECT, see kernel.modules()"
    )
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory")
    parser.add_argument("--time-limit", type=int, default=900, help="in seconds")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="after --")
    parser.set_defaults(run=machine)
