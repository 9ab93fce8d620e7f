#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Judges a run on a driver with a defect: judge.py lock-inversion|leak|defects, the results at /results.

Ends with status 0 if the command passed and the kernel reported the defect, and nothing but the defect.
What counts as a report is vm.py's business.
"""

import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import vm  # noqa: E402

MODULE = "vfio_pci_rs"
CIRCULAR = "WARNING: possible circular locking dependency detected"
LEAK = "unreferenced object"


class Unexpected(Exception):
    """What differs from what the defect must lead to, in one sentence."""


def lock_inversion(reported):
    """Returns what is reported apart from one circular dependency between the driver's two locks."""
    lines = (vm.RESULTS / "dmesg.log").read_text(errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if CIRCULAR in line]
    if len(starts) != 1:
        raise Unexpected(f"lockdep should have reported one circular dependency, and reported {len(starts)}")
    report = []
    for line in lines[starts[0] :]:
        report.append(line)
        if line.endswith("</TASK>"):
            break
    # A task of the scenarios has to be the one that it is about.
    for part in ("(reflck)", "(reset_domains)", f"[{MODULE}]", "scenarios/"):
        if not any(part in line for line in report):
            raise Unexpected(f"lockdep's report has nothing of {part} in it")
    return [line for line in reported if line not in report]


def places():
    """The addresses that the module had, each time that it was loaded, as the scenarios print them."""
    text = (vm.RESULTS / "output.log").read_text()
    loaded = re.findall(rf"^# loaded {MODULE} (\d+) .* 0x([0-9a-f]+)", text, flags=re.MULTILINE)
    return [range(int(start, 16), int(start, 16) + int(size)) for size, start in loaded]


def is_drivers(leaked, modules):
    """Whether a function of the driver is in the backtrace. The kernel has no name for it, as the module
    is gone when it looks for leaks."""
    addresses = [int(address, 16) for address in re.findall(r"^    0x([0-9a-f]+)$", leaked, flags=re.MULTILINE)]
    return f"[{MODULE}]" in leaked or any(address in module for address in addresses for module in modules)


def leak(reported):
    """Returns what is reported apart from leaks by the driver."""
    text = (vm.RESULTS / "kmemleak.log").read_text()
    objects = re.split(f"^(?={LEAK})", text, flags=re.MULTILINE)[1:]
    if not objects:
        raise Unexpected("kmemleak should have reported a leak, and reported none")
    modules = places()
    for leaked in objects:
        if not is_drivers(leaked, modules):
            raise Unexpected(f"kmemleak reported a leak that is not the driver's:\n{leaked}")
    known = re.compile(rf"^kmemleak: {LEAK}|kmemleak: \d+ new suspected memory leaks")
    return [line for line in reported if not known.search(line)]


DEFECTS = {"lock-inversion": [lock_inversion], "leak": [leak], "defects": [lock_inversion, leak]}


def judge(name):
    status = (vm.RESULTS / "exit-status").read_text().strip()
    if status != "0":
        raise Unexpected(f"the scenarios should have passed, and ended with status {status}")
    others = vm.splats()
    for without in DEFECTS[name]:
        others = without(others)
    if others:
        raise Unexpected("something else was reported as well:\n" + "\n".join(others))


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in DEFECTS:
        print(f"judge: needs the name of a defect, one of {', '.join(DEFECTS)}", file=sys.stderr)
        return 1
    try:
        judge(sys.argv[1])
    except (Unexpected, OSError) as error:
        print(f"judge: {error}", file=sys.stderr)
        return 1
    found = " and ".join(defect.__name__.replace("_", " ") for defect in DEFECTS[sys.argv[1]])
    print(f"What was reported is the {found} of the driver, and nothing else.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
