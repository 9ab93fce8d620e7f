# SPDX-License-Identifier: GPL-2.0
"""Judges runs on a driver with a defect on purpose, which the tests must find.

The defects are tools/testing/defects/NAME.patch.
"""

import re

from .results import wrong
from .vm import lines_of

CIRCULAR = "WARNING: possible circular locking dependency detected"
LEAK = "unreferenced object"
# The locks that the defect takes in both orders, and the module.
INVERTED = ("(reflck)", "(reset_domains)", "[vfio_pci_rs]")


def reported(directory, outcome):
    """Judges a run with a lock inversion and a leak, both of which the kernel must report.

    The suites on the driver without them show that it has no others.
    """
    dmesg, leaks = ("\n".join(lines_of(directory / f"{name}.log")) for name in ("dmesg", "kmemleak"))
    report = dmesg.partition(CIRCULAR)[2].partition("</TASK>")[0]
    ended = [] if outcome.status == 0 else [f"they ended with {outcome.status}: {outcome.reason}"]
    return [
        wrong("lockdep reports the lock inversion",
              [f"its report does not mention {part}" for part in INVERTED if part not in report]),
        wrong("kmemleak reports the leak", [] if LEAK in leaks else ["it does not"]),
        wrong("the tests pass", ended),
    ]  # fmt: skip


def found(directory, outcome):
    """Judges a soak of the driver with a defect: a check of a round must fail, or not end."""
    failed = re.compile("    not ok round |an operation does not end:")
    found = [line for line in lines_of(directory / "output.log") if failed.match(line)]
    return [wrong("the soak finds the defect", [] if found else ["it does not"])]
