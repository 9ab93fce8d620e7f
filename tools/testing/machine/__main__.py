# SPDX-License-Identifier: GPL-2.0
"""python3 -m machine SET TOOL...: runs the tests of tools on the driver of a module set.

A test is a function of a module TOOL. After one that returns REBOOT, or a function that boots it,
the machine boots, and this program goes on with the next one.
"""

import importlib
import sys
from pathlib import Path

from . import pci, report

# The exit status that machine.service takes for this wish.
REBOOT_STATUS = 42
NEXT = Path("/var/tmp/machine-next")


def main(modset, *tools):
    driver, tests = pci.Driver(modset), []
    for module in (importlib.import_module(f"machine.{tool}") for tool in tools):
        left_out = () if driver.is_default else getattr(module, "NEED_THE_NAME", ())
        tests += [function for function in module.TESTS if function not in left_out]
    first = int(NEXT.read_text()) if NEXT.exists() else 0
    file = report.Report([function.__name__ for function in tests], is_new=not first)
    for number, function in enumerate(tests[first:], start=first + 1):
        if boot := file.run(function, driver):
            NEXT.write_text(str(number))
            return REBOOT_STATUS if boot == report.REBOOT else boot()
    return 1 if file.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
