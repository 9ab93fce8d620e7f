# SPDX-License-Identifier: GPL-2.0
"""`make check`, `make check-all`, and single tests by name.

Owns the order in which suites run, what is cached of them, and the report.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import Future

from . import ARCH, CACHE, Failure, shown, suites, table
from .artifact import artifact, find, key, locked, recipe, remove, say
from .kinds import Guest, Host, Kunit, Machine, build
from .results import Result, count, totals

# A guest waits for its devices' resets half of the time, so one more of them keeps the processors
# busy. Even more would want more memory than the time they save is worth.
AT_ONCE = min(os.cpu_count() + 1, 4)


class Run:
    """One run of suites. The most costly one that can run comes first."""

    def __init__(self, table, results):
        self.suites, self.results, self.ready = table, results, queue.PriorityQueue()
        self.lock, self.start = threading.Lock(), time.monotonic()
        self.counts, self.times = Counter(), []

    def __call__(self):
        """Runs the suites, prints the totals, and returns the exit status."""
        work = [self.build, *[self.work] * (AT_ONCE - 1)]
        threads = [threading.Thread(target=function, daemon=True) for function in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for suite in (suite for suite in self.suites if suite.after):
            self.run(suite, {})
        times = table.text(("suite", "took", "from", "to"), self.times)
        (self.results / "times.txt").write_text(times)
        failed = self.counts[False]
        print(
            f"{f'{failed} tests have failed' if failed else 'Every test that ran has passed'}, "
            f"after {self.seconds():.0f} s; the logs, and times.txt with where the time went, "
            f"are in {shown(self.results)}.\n{totals(self.counts)}"
        )
        return 1 if failed or not self.counts[True] else 0

    def seconds(self):
        return time.monotonic() - self.start

    def build(self):
        """Builds what the suites need, in the order of the table, and then works.

        Suites that need nothing run meanwhile.
        """
        made = {need: Future() for suite in self.suites for need in suite.needs()}
        for number, suite in sorted(enumerate(self.suites), key=lambda item: bool(item[1].needs())):
            futures = {need: made[need] for need in suite.needs()}
            for need, future in futures.items():
                if not future.done():
                    try:
                        future.set_result(build(need))
                    except Exception as error:
                        future.set_exception(error)
            if not suite.after:
                self.ready.put((-suite.cost, number, suite, futures))
        for number in range(AT_ONCE):
            self.ready.put((1, number, None, None))
        self.work()

    def work(self):
        while (job := self.ready.get()[2:])[0]:
            self.run(*job)

    def run(self, suite, futures):
        """Comes to a suite's results, prints and counts them."""
        start, kept = self.seconds(), None
        try:
            made = {need: future.result() for need, future in futures.items()}
            inputs = suite.inputs(made)
            # Before the run: a source may change meanwhile.
            inputs = inputs and [key([*inputs, recipe(Result)])]
            kept = inputs and find(f"passed-{suite.name}", inputs)
            results = self.reuse(suite, kept) if kept else self.execute(suite, made, inputs)
        except Failure as failure:
            # A test that cannot be run has failed.
            results = [Result("can be run", False, failure.explanation())]
        except Exception:
            results = [Result("can be run", False, traceback.format_exc())]
        end, (counts, lines) = self.seconds(), count(results)
        took = "cached" if kept else f"{end - start:.1f} s"
        with self.lock:
            self.counts += counts
            self.times.append((suite.name, took, f"{start:.0f}", f"{end:.0f}"))
            lines = (f"    {line}" for line in lines)
            print(f"{suite.name}: {totals(counts)} ({took})", *lines, sep="\n", flush=True)

    def reuse(self, suite, kept):
        (self.results / suite.name).symlink_to(os.path.relpath(kept, self.results))
        text = (kept / "results.json").read_text()
        return json.loads(text, object_hook=lambda fields: Result(**fields))

    def execute(self, suite, made, inputs):
        """Runs a suite, and keeps all that it leaves if it passes."""
        if not suite.after:
            say(f"  {suite.name} ...")
        directory = self.results / suite.name
        directory.mkdir()
        results = suite.run(directory, made)
        (directory / "results.json").write_text(json.dumps(results, default=vars, indent=1))
        if inputs and not count(results)[0][False]:
            artifact(f"passed-{suite.name}", inputs,
                     lambda new, _: shutil.copytree(directory, new, dirs_exist_ok=True))
        return results


@contextlib.contextmanager
def results_of(command):
    """Yields the command's empty directory of results, which one run at a time has.

    A signal ends the process at once: the guests are in its namespace, and end with it.
    """
    for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
        signal.signal(number, lambda number, _: os._exit(128 + number))
    say(f"Everything is in {shown(CACHE)}, and made there if it is missing.")
    directory = CACHE / "results" / command
    with locked(command):
        remove(directory)
        directory.mkdir(parents=True)
        yield directory


def print_bytes(new):
    sys.stdout.buffer.write(new)
    sys.stdout.buffer.flush()


def check(long):
    with results_of("check-all" if long else "check") as directory:
        every = suites.SUITES + suites.ON_DEMAND
        table = [suite.longer() for suite in every] if long else suites.SUITES
        return Run(table, directory)()


def test(name, kernel, driver):
    """Runs one scenario, one selftest (PROGRAM or PROGRAM.TEST), or one suite.

    Those whose results the suite reads run before it, unless they have passed already.
    """
    suite = suites.by_name(name, kernel, driver)
    if ARCH and isinstance(suite, (Host, Kunit, Machine)):
        raise Failure(f"{name} does not run on {ARCH}")
    return run_one(suite, [suites.by_name(other, kernel, driver) for other in suite.after])


def soak(kernel, modules, options):
    return run_one(suites.soak(0, options, kernel=kernel, modules=modules, limit=24 * 3600))


def run_one(suite, before=()):
    """Runs a suite, after those that it reads, and returns the exit status."""
    with results_of("test") as directory:
        if before:
            return Run([*before, suite], directory)()
        logs, failed = run_in(directory, suite, print_bytes)
        on = f"the kernel {suite.kernel}" if isinstance(suite, Guest) else "the host"
        print(f"It ran on {on}; the logs are in {shown(logs)}.")
    return 1 if failed else 0


def run_in(results, suite, output=None):
    """Runs a suite in a directory of `results`; returns that, and how many tests failed."""
    made, directory, start = suite.build(), results / suite.name, time.monotonic()
    directory.mkdir()
    say(f"  {suite.name} ...")
    counts, lines = count(suite.run(directory, made, output))
    took = f"{time.monotonic() - start:.1f} s"
    print(*lines, f"{suite.name}: {totals(counts)} ({took})", sep="\n", flush=True)
    return directory, counts[False]


def report(results):
    """Prints the Results of a command on the host, and returns the exit status."""
    counts, lines = count(results)
    print(*lines, totals(counts), sep="\n")
    return 1 if counts[False] else 0
