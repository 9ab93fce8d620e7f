# SPDX-License-Identifier: GPL-2.0
"""Unit tests on the host: `make unit`. The reflck and the guests' crates by cargo, and the runner's own."""

import re
import shutil
import sys

from . import REPO, TESTING, Failure, driver_files
from .artifact import Steps
from .cargo import cargo
from .results import report


def inputs(_):
    """Returns the inputs of all of them."""
    return [*driver_files(), TESTING]


def results(_=False):
    """Returns (name, ok, detail) for every test."""
    return [*crates(), *runner()]


def crates():
    """Runs the tests of the workspace's crates."""
    if not shutil.which("cargo"):
        return [("crates", None, "needs cargo")]
    output, failure = attempt("unit-crates", lambda run: cargo(run, "", "test", "--locked", "--no-fail-fast"))
    found, crate = [], ""
    for line in output.splitlines():
        running = re.search(r"Running .*deps/(\w+)-[0-9a-f]+\)", line)
        crate = running[1] if running else crate
        test = re.match(r"test (\S+) (?:- should panic )?\.\.\. (ok|FAILED|ignored)", line)
        if test:
            ok = {"ok": True, "FAILED": False, "ignored": None}[test[2]]
            found.append((f"{crate}: {test[1]}", ok, panic(output, test[1]) if ok is False else ""))
    return complete("crates", found, output, failure)


def panic(output, test):
    """Returns the message of a test that failed."""
    said = re.search(rf"^---- {re.escape(test)} stdout ----\n(.*?)(?=^---- |^failures:)", output, re.MULTILINE | re.DOTALL)
    return said[1].strip() if said else ""


def runner():
    """Runs the tests of this package."""
    command = [sys.executable, "-m", "unittest", "discover", "-v", "-s", "tools/testing/runner", "-t", "tools/testing"]
    output, failure = attempt("unit-runner", lambda run: run("", *command, cwd=REPO))
    tests = re.findall(r"^\w+ \(runner\.([\w.]+)\)(?:\n.*)? \.\.\. (ok|FAIL|ERROR|skipped ['\"](.*)['\"])$", output, re.MULTILINE)
    found = [(f"runner: {name}", None if why else ended == "ok", why) for name, ended, why in tests]
    return complete("runner", found, output, failure)


def attempt(name, function):
    """Returns what function(run) returns, and whether it failed."""
    try:
        return function(Steps(name)), False
    except Failure as failure:
        return failure.output, True


def complete(name, found, output, failure):
    """Returns the results `found`, and a failure if the program failed without one."""
    if found and not (failure and all(ok is not False for _, ok, _ in found)):
        return found
    return [*found, (f"{name}: can be built and run", False, "\n".join(output.splitlines()[-60:]))]


def add_parser(subparsers):
    parser = subparsers.add_parser("unit", help="run the unit tests")
    parser.set_defaults(run=lambda _: report("unit", results()))
