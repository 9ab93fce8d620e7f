# SPDX-License-Identifier: GPL-2.0
"""Judges runs on a driver with a defect on purpose: the tests must find it, and nothing else.

The defects are tools/testing/defects/NAME.patch.
"""

import re

from .results import wrong
from .vm import lines_of

MODULE = "vfio_pci_rs"
CIRCULAR = "WARNING: possible circular locking dependency detected"
LEAK = "unreferenced object"
# The locks that the defect takes in both orders.
LOCKS = ("(reflck)", "(reset_domains)")


def circular_report(lines):
    """Returns lockdep's report in a kernel log, and complaints unless it is as it must be.

    It must be the only one, and be about the driver's locks.
    """
    starts = [number for number, line in enumerate(lines) if CIRCULAR in line]
    if len(starts) != 1:
        return [], [f"lockdep should report one circular dependency, and reported {len(starts)}"]
    report = lines[starts[0] :]
    ends = [number for number, line in enumerate(report) if line.endswith("</TASK>")]
    report = report[: ends[0] + 1] if ends else report
    absent = [part for part in (*LOCKS, f"[{MODULE}]") if part not in "\n".join(report)]
    return report, [f"lockdep's report does not mention {part}" for part in absent]


def leaks(report, output):
    """Returns complaints unless kmemleak's report has leaks of the driver, and of it alone.

    The module is gone when the guest scans: the backtraces have addresses and no names. The output
    has its addresses, each time that it was loaded.
    """
    found = re.split(f"^(?={LEAK})", report, flags=re.MULTILINE)[1:]
    if not found:
        return ["kmemleak should have reported a leak, and reported none"]
    loaded = re.findall(rf"^# loaded {MODULE} (\d+) .* 0x([0-9a-f]+)", output, re.MULTILINE)
    modules = [range(int(start, 16), int(start, 16) + int(size)) for size, start in loaded]
    others = []
    for leak in found:
        trace = [int(at, 16) for at in re.findall(r"^    0x([0-9a-f]+)$", leak, re.MULTILINE)]
        is_ours = f"[{MODULE}]" in leak or any(at in module for at in trace for module in modules)
        others += [] if is_ours else [f"this leak is not the driver's:\n{leak}"]
    return others


def reported(directory, outcome):
    """Judges a run with a lock inversion and a leak: both have to be reported, and nothing else."""
    report, inversion = circular_report(lines_of(directory / "dmesg.log"))
    logs = ("\n".join(lines_of(directory / name)) for name in ("kmemleak.log", "output.log"))
    known = re.compile(rf"^kmemleak: {LEAK}|kmemleak: \d+ new suspected memory leaks")
    others = [line for line in outcome.splats if line not in report and not known.search(line)]
    others += [outcome.reason] if outcome.reason else []
    if outcome.status:
        others.append(f"the tests should have passed, and ended with status {outcome.status}")
    return [
        wrong("lockdep reports the lock inversion", inversion),
        wrong("kmemleak reports the leak", leaks(*logs)),
        wrong("nothing else is reported", others),
    ]


def found(directory, outcome):
    """Judges a soak of the driver with a defect: a check of a round must fail, or not end."""
    failed = re.compile("    not ok round |an operation does not end:")
    found = [line for line in lines_of(directory / "output.log") if failed.match(line)]
    return [wrong("the soak finds the defect", [] if found else ["it does not"])]
