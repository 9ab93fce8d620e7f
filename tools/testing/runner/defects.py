# SPDX-License-Identifier: GPL-2.0
"""Judges runs on a driver with a defect on purpose: the tests must find it, and nothing else.

The defects are tools/testing/defects/NAME.patch.
"""

import re

from .ktap import Result

MODULE = "vfio_pci_rs"
CIRCULAR = "WARNING: possible circular locking dependency detected"
LEAK = "unreferenced object"
# The locks that the defect takes in both orders.
LOCKS = ("(reflck)", "(reset_domains)")


class Unexpected(Exception):
    """How a run differs from what the defect must lead to."""


def circular_report(log):
    """Returns lockdep's report in a kernel log: one, about the driver's locks."""
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if CIRCULAR in line]
    if len(starts) != 1:
        raise Unexpected(
            f"lockdep should have reported one circular dependency, and reported {len(starts)}"
        )
    report = lines[starts[0] :]
    ends = [number for number, line in enumerate(report) if line.endswith("</TASK>")]
    report = report[: ends[0] + 1] if ends else report
    for part in (*LOCKS, f"[{MODULE}]"):
        if not any(part in line for line in report):
            raise Unexpected(f"lockdep's report does not mention {part}")
    return report


def module_ranges(output):
    """Returns the addresses of the module, each time that it was loaded."""
    loaded = re.findall(rf"^# loaded {MODULE} (\d+) .* 0x([0-9a-f]+)", output, flags=re.MULTILINE)
    return [range(int(start, 16), int(start, 16) + int(size)) for size, start in loaded]


def check_leaks(text, output):
    """Raises Unexpected unless kmemleak's report has leaks of the driver, and of the driver alone.

    The module is gone when the guest scans: the backtraces have addresses and no names.
    """
    leaks = re.split(f"^(?={LEAK})", text, flags=re.MULTILINE)[1:]
    if not leaks:
        raise Unexpected("kmemleak should have reported a leak, and reported none")
    modules = module_ranges(output)
    for leak in leaks:
        addresses = [
            int(address, 16)
            for address in re.findall(r"^    0x([0-9a-f]+)$", leak, flags=re.MULTILINE)
        ]
        if f"[{MODULE}]" not in leak and not any(
            address in module for address in addresses for module in modules
        ):
            raise Unexpected(f"kmemleak reported a leak that is not the driver's:\n{leak}")


def reported(directory, outcome):
    """Judges a run with a lock inversion and a leak: both have to be reported, and nothing else."""

    def read(name):
        path = directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    known = re.compile(rf"^kmemleak: {LEAK}|kmemleak: \d+ new suspected memory leaks")
    others = [line for line in outcome.splats if not known.search(line)]
    results = []
    for name, find in (
        ("lockdep reports the lock inversion", lambda: circular_report(read("dmesg.log"))),
        (
            "kmemleak reports the leak",
            lambda: check_leaks(read("kmemleak.log"), read("output.log")),
        ),
    ):
        try:
            report = find() or []
            others = [line for line in others if line not in report]
            results.append(Result(name, True))
        except Unexpected as difference:
            results.append(Result(name, False, str(difference)))
    wrong = others + ([outcome.reason] if outcome.reason else [])
    if outcome.status:
        wrong.append(f"the tests should have passed, and ended with status {outcome.status}")
    return [*results, Result("nothing else is reported", not wrong, "\n".join(wrong))]
