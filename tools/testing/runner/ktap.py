# SPDX-License-Identifier: GPL-2.0
"""KTAP: written here and nowhere else on the host, and read by the kernel's own parser.

A missing result is a failure, and so is a file that tests nothing.
"""

import functools
import io
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import Failure

VERSION = "KTAP version 1"


@dataclass
class Result:
    """A test: `ok` is None if it was skipped. `detail` explains a failure or a skip."""

    name: str
    ok: bool | None
    detail: str = ""
    subtests: list = field(default_factory=list)

    @classmethod
    def of(cls, result):
        """Returns `result`, which may be a tuple (name, ok, detail), as a Result."""
        return result if isinstance(result, cls) else cls(*result)

    def passed(self):
        """Returns whether neither the test nor one of its subtests failed."""
        return self.ok is not False and all(subtest.passed() for subtest in self.subtests)

    def leaves(self, path=()):
        """Yields (path of names, Result) for each test without subtests."""
        path = (*path, self.name)
        if not self.subtests:
            yield path, self
        for subtest in self.subtests:
            yield from subtest.leaves(path)


@dataclass
class Totals:
    """The counts of a file, and what to print about its failures and skips."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list = field(default_factory=list)
    skips: Counter = field(default_factory=Counter)


def _lines(results, indent):
    yield f"{indent}1..{len(results)}"
    for number, result in enumerate(results, start=1):
        # The parser ends a name at "#".
        name = " ".join(result.name.replace("#", " ").split())
        detail = result.detail.splitlines()
        if result.subtests:
            yield f"{indent}    {VERSION}"
            yield f"{indent}    # Subtest: {name}"
            # It takes a subtest of this very name for the end of the test.
            subtests = [
                Result(subtest.name + " itself", subtest.ok, subtest.detail, subtest.subtests)
                if subtest.name == result.name else subtest for subtest in result.subtests
            ]  # fmt: skip
            yield from _lines(subtests, indent + "    ")
        if result.ok is not None:
            # "Subtest:" in the first column of a comment would open one.
            yield from (f"{indent}#   {line}" for line in detail)
        skip = f" # SKIP {' '.join(detail)}" if result.ok is None else ""
        yield f"{indent}{'ok' if result.passed() else 'not ok'} {number} {name}{skip}"


def text(results):
    """Returns `results`, Results or tuples (name, ok, detail), as KTAP."""
    return "\n".join([VERSION, *_lines([Result.of(result) for result in results], "")]) + "\n"


def write(path, results):
    """Writes `results`, see text(), to the file `path`."""
    Path(path).write_text(text(results), encoding="utf-8")


def events(path):
    """Yields the events of a guest's program. The last line may be incomplete."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def from_events(path):
    """Returns the Results of a guest's program: one for each test that was planned or started."""
    tests, ended = {}, set()
    for event in events(path):
        kind, name = event["event"], event.get("test")
        if kind == "plan":
            tests.update((planned, []) for planned in event["tests"])
            continue
        checks = tests.setdefault(name, [])
        if kind == "check":
            checks.append(Result(event["what"], event["ok"], event.get("why") or ""))
        elif kind == "skip":
            checks.append(Result(event["what"], None, event["why"]))
        elif kind == "end":
            ended.add(name)
    results = []
    for name, checks in tests.items():
        if name not in ended:
            checks.append(Result("runs to its end", False, "the test has no end"))
        elif all(check.ok is None for check in checks):
            checks.append(Result("asserts something", False, "the test asserts nothing"))
        results.append(Result(name, all(check.ok is not False for check in checks), "", checks))
    return results


def observations(path):
    """Returns {test: {key: value}} of what a guest's program recorded for comparison."""
    tests = {}
    for event in events(path):
        if event["event"] == "observe" and event.get("compared", True):
            tests.setdefault(event["test"], {})[event["key"]] = str(event["value"])
    return tests


def compare(one, other):
    """Compares two sets of observations: a Result a test. One that is missing differs."""
    results = []
    for name in {**one, **other}:
        left, right = one.get(name, {}), other.get(name, {})
        differences = [
            f"{key}: {left.get(key, 'nothing')} and {right.get(key, 'nothing')}"
            for key in {**left, **right} if left.get(key) != right.get(key)
        ]  # fmt: skip
        results.append(Result(name, not differences, "\n".join(differences)))
    return results


def kunit(log, suite):
    """Extracts a KUnit suite from a kernel log, as KTAP: each run of it, and no other suite."""
    lines, runs, inside = [], 0, False
    for line in log.splitlines():
        line = re.sub(r"^\[ *\d+\.\d+\] ", "", line)
        # Other messages of the kernel come in between.
        if not re.match(r" *(KTAP version|# |1\.\.|ok |not ok )", line):
            continue
        if line == f"    # Subtest: {suite}":
            runs, inside = runs + 1, True
            lines.append(f"    {VERSION}")
        if inside and re.match(r"(not )?ok ", line):
            lines.append(re.sub(r"ok \d+", f"ok {runs}", line, count=1))
            inside = False
        elif inside:
            lines.append(line)
    return "\n".join([VERSION, f"1..{max(runs, 1)}", *lines]) + "\n"


@functools.cache
def _parser():
    """Returns the modules kunit_parser and kunit_printer of the kernel's source."""
    from . import kernel

    sys.path.insert(0, str(Path(kernel.source()) / "tools/testing/kunit"))
    try:
        import kunit_parser
        import kunit_printer
    except ImportError as error:
        raise Failure(f"looked for kunit_parser in {sys.path[0]}: {error}") from error
    finally:
        del sys.path[0]
    return kunit_parser, kunit_printer


def _from_kunit(test):
    skipped = test.status.name == "SKIPPED"
    detail = (
        test.skip_reason if skipped else "\n".join(re.sub("^# ?", "", line) for line in test.log)
    )
    ok = None if skipped else test.status.name == "SUCCESS"
    return Result(test.name, ok, detail, [_from_kunit(subtest) for subtest in test.subtests])


def read(ktap):
    """Parses KTAP or TAP. Returns (Results, counts, errors) of the kernel's parser."""
    parser, printer = _parser()
    output = io.StringIO()
    test = parser.parse_run_tests(ktap.splitlines(), printer.Printer(output=output))
    errors = re.findall(r"\[ERROR\] Test: (.*)", output.getvalue())
    return [_from_kunit(subtest) for subtest in test.subtests], test.counts, errors


def totals(ktap):
    """Counts the results in KTAP."""
    results, counts, errors = read(ktap)
    found = Totals(
        counts.passed, counts.failed + counts.crashed + counts.errors, counts.skipped, list(errors)
    )
    for result in results:
        for path, leaf in result.leaves():
            if leaf.ok is None:
                found.skips[f"{': '.join(path)} # {leaf.detail}"] += 1
            elif not leaf.ok:
                found.failures.append(": ".join(path))
                found.failures += [f"    {line}" for line in leaf.detail.splitlines()]
    if found.passed + found.failed == 0:
        found.failed = 1
        found.failures.append("nothing was tested")
    return found


def parse(path):
    """Returns the Totals of a file; one that does not exist has failed."""
    path = Path(path)
    return totals(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "")
