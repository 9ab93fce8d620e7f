# SPDX-License-Identifier: GPL-2.0
"""driverctl: an override of the driver that is kept over a reboot."""

import re

from .pci import Function
from .report import REBOOT, run


def overrides():
    """Returns {address: driver} of the overrides, and of the persisted ones."""
    # Without an override, the first one fails and says so.
    printed = (run("driverctl", f"list-{name}", ok=None) for name in ("overrides", "persisted"))
    return [dict(re.findall(r"^(\S+:\S+) (\S+)$", text, re.M)) for text in printed]


def driverctl_set(test, driver):
    """set-override and list-overrides; then the machine boots again."""
    function = Function("igb.pf")
    test.eq("the function has its usual driver", "igb", function.driver())
    run("driverctl", "set-override", function, driver.name)
    test.eq("it is bound to the driver", driver.name, function.driver())
    test.eq("it is listed", [{function.address: driver.name}] * 2, overrides())
    return REBOOT


def driverctl_booted(test, driver):
    """The override after the boot, and unset-override."""
    function = Function("igb.pf")
    test.eq("it is bound to the driver", driver.name, function.driver())
    test.eq("the override is kept", [{function.address: driver.name}] * 2, overrides())
    test.eq("others have their usual driver", "igb", Function("pair.0").driver())
    run("driverctl", "unset-override", function)
    test.eq("the override is gone", [{}, {}], overrides())
    # Debian's driverctl has told vfio-pci the ID of the function.
    test.seen("driver after unset-override", function.driver(), compared=True)


TESTS = (driverctl_set, driverctl_booted)
