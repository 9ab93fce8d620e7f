# SPDX-License-Identifier: GPL-2.0
"""Results of tests, and how they are counted. A run that tests nothing has failed."""

from collections import Counter
from dataclasses import dataclass, field

from . import Failure


@dataclass
class Result:
    """A test: `ok` is None if it was skipped. `detail` explains a failure or a skip."""

    name: str
    ok: bool | None
    detail: str = ""
    subtests: list = field(default_factory=list)

    def passed(self):
        """Returns whether neither the test nor one of its subtests failed."""
        return self.ok is not False and all(subtest.passed() for subtest in self.subtests)

    def leaves(self, path=()):
        """Yields (path of names, Result) for each test that counts.

        These have no subtests, or failed although their subtests passed.
        """
        path = (*path, self.name)
        if not self.subtests or (self.ok is False and all(test.passed() for test in self.subtests)):
            yield path, self
        for subtest in self.subtests:
            yield from subtest.leaves(path)


def wrong(name, lines):
    """Returns the Result of a test that found `lines` wrong: it passed if there are none."""
    return Result(name, not lines, "\n".join(lines))


def attempt(name, function):
    """Returns the Result of a function, which may raise a Failure."""
    try:
        function()
    except Failure as failure:
        return Result(name, False, failure.explanation())
    return Result(name, True)


def count(results):
    """Returns the Counter of Result.ok, and lines to print about those that did not pass."""
    counts, lines, skips = Counter(), [], Counter()
    for path, leaf in (leaf for result in results for leaf in result.leaves()):
        name = ": ".join(path)
        counts[leaf.ok] += 1
        if leaf.ok is None:
            skips[f"skipped: {name}: {leaf.detail}"] += 1
        elif not leaf.ok:
            lines += [f"failed: {name}", *(f"    {line}" for line in leaf.detail.splitlines())]
    if not counts[True] + counts[False]:
        counts[False] = 1
        lines.append("failed: nothing was tested")
    return counts, lines + [f"{skip} ({n} times)" if n > 1 else skip for skip, n in skips.items()]


def totals(counts):
    return f"{counts[True]} passed, {counts[False]} failed, {counts[None]} skipped"
