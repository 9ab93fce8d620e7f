# SPDX-License-Identifier: GPL-2.0
"""Unit tests on the host: `make unit`. The workspace's crates by cargo, and the runner's own."""

import re
import shutil
import sys

from . import REPO, TESTING, Failure, driver_files
from .artifact import Steps
from .cargo import cargo
from .results import Result

OUTCOMES = {"ok": True, "FAILED": False, "FAIL": False, "ERROR": False}


def inputs():
    return [*driver_files(), TESTING, REPO / "tools/package"]


def results():
    discover = [sys.executable, "-m", "unittest", "discover", "-v", "-s", "runner", "-t", "."]
    runner = run_tests("runner", tests_of_runner, lambda run: run("", *discover, cwd=TESTING))
    if not shutil.which("cargo"):
        return [Result("crates", None, "needs cargo"), *runner]
    test = ["test", "--locked", "--no-fail-fast"]
    return [*run_tests("crates", tests_of_crates, lambda run: cargo(run, "", *test)), *runner]


def run_tests(name, parse, function):
    """Returns the Results that parse(output) finds in the output of function(run).

    One of them has failed if the program has.
    """
    has_failed = False
    try:
        output = function(Steps(f"unit-{name}"))
    except Failure as failure:
        output, has_failed = failure.output, True
    found = [Result(f"{name}: {test}", OUTCOMES.get(ok), why) for test, ok, why in parse(output)]
    if not found or (has_failed and all(result.passed() for result in found)):
        found.append(Result(f"{name}: can be built and run", False, output[-4000:]))
    return found


def tests_of_crates(output):
    """Yields (name, outcome, panic message) for each test of cargo's output."""
    for crate in re.split(r"(?=^ +Running )", output, flags=re.MULTILINE):
        name = re.search(r"Running .*deps/(\w+)-[0-9a-f]+\)", crate)
        ended = r"^test (\S+) (?:- should panic )?\.\.\. (ok|FAILED|ignored)"
        for test, outcome in re.findall(ended, crate, re.MULTILINE):
            said = rf"^---- {re.escape(test)} stdout ----\n([\s\S]*?)(?=^---- |^failures:)"
            panic = re.search(said, crate, re.MULTILINE)
            yield f"{name[1]}: {test}", outcome, panic[1].strip() if panic else ""


def tests_of_runner(output):
    """Returns (name, outcome, reason of a skip) for each test of unittest's output."""
    test = r"^\w+ \(runner\.([\w.]+)\)(?:\n.*)? \.\.\. (ok|FAIL|ERROR|skipped ['\"](.*)['\"])$"
    return re.findall(test, output, re.MULTILINE)
