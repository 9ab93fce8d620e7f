# SPDX-License-Identifier: GPL-2.0
"""KTAP and TAP, read by the kernel's own parser."""

import functools
import io
import re
import sys

from . import kernel
from .results import Result


@functools.cache
def _parser():
    """Returns the modules kunit_parser and kunit_printer of the kernel's source."""
    sys.path.insert(0, str(kernel.source() / "tools/testing/kunit"))
    try:
        import kunit_parser
        import kunit_printer
    finally:
        del sys.path[0]
    return kunit_parser, kunit_printer


def _results(tests):
    """Returns tests of the parser as Results, but for missing ones, which have no name."""
    found = []
    for test in (test for test in tests if test.name or test.status.name != "TEST_CRASHED"):
        ok = {"SUCCESS": True, "SKIPPED": None}.get(test.status.name, False)
        log = "\n".join(re.sub("^# ?", "", line) for line in test.log)
        detail = test.skip_reason if ok is None else log
        found.append(Result(test.name, ok, detail, _results(test.subtests)))
    return found


def read(ktap):
    """Parses KTAP or TAP. Returns Results, and the parser's errors, one for each missing test."""
    parser, printer = _parser()
    output = io.StringIO()
    test = parser.parse_run_tests(ktap.splitlines(), printer.Printer(output=output))
    errors = dict.fromkeys(re.findall(r"\[ERROR\] Test: (.*)", output.getvalue()))
    return _results(test.subtests), list(errors)
