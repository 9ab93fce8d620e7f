# SPDX-License-Identifier: GPL-2.0
"""`make demo`: the driver at its main job, beside vfio-pci.

Both drivers go through the same program, each in a virtual machine of its own, at the same time.
"""

import fnmatch
import threading
import time

from . import events, shown, table
from .check import print_bytes, results_of
from .kinds import Guest

OURS, C = "vfio_pci_rs", "vfio-pci"
# What is observed, its key, and the patterns that vfio_pci_rs and vfio-pci have to match.
ROWS = (
    ("reset domain of the two functions", "domain", "bus *, 2 functions", "not shown"),
    ("power state of qemu.a before", "power_before_qemu.a", "D3hot", "D3hot"),
    ("power state of qemu.b before", "power_before_qemu.b", "D3hot", "D3hot"),
    ("functions that QEMU's firmware sees", "seen_by_firmware", "2", "2"),
    ("power state of qemu.a in use", "power_during_qemu.a", "D0", "D0"),
    ("power state of qemu.b in use", "power_during_qemu.b", "D0", "D0"),
    ("bus resets before the last close", "resets_before_release", "0", "0"),
    ("bus resets at the last close", "resets_at_release", "1", "1"),
    ("bus resets by the driver at any other time", "resets_elsewhere", "0", "0"),
    ("bus resets that QEMU asked for (hot reset)", "resets_asked_by_qemu", "[0-9]*", "[0-9]*"),
    ("power state of qemu.a after", "power_after_qemu.a", "D3hot", "D3hot"),
    ("power state of qemu.b after", "power_after_qemu.b", "D3hot", "D3hot"),
    ("functions that still need a reset", "dirty_after", "0", "not shown"),
    ("references to the module at the end", "references", "0", "0"),
    ("seconds until QEMU was ready", "qemu_ready_seconds", "[0-9]*", "[0-9]*"),
    ("kernel log", "log", "clean", "clean"),
)


def rows(ours, c):
    """Returns the rows of the table; the last cell of each is "ok" if it is as expected."""
    lines = []
    for what, key, expected, expected_of_c in ROWS:
        seen, seen_of_c = ours.get(key, "not shown"), c.get(key, "not shown")
        ok = fnmatch.fnmatchcase(seen, expected) and fnmatch.fnmatchcase(seen_of_c, expected_of_c)
        lines.append((what, seen, seen_of_c, "ok" if ok else "UNEXPECTED"))
    return lines


def demo():
    start, seen = time.monotonic(), {}
    command = "{programs}/demo --driver "
    guests = {
        driver: Guest(driver, topology="demo", command=command + driver, modules=modset, limit=600)
        for driver, modset in ((OURS, "rs"), (C, "stock"))
    }
    with results_of("demo") as results:
        made = {driver: guest.build() for driver, guest in guests.items()}

        def run(driver, output=None):
            directory = results / driver
            directory.mkdir()
            *_, log = guests[driver].run(directory, made[driver], output)
            observed = events.observations(directory / "demo.events.jsonl", only_compared=False)
            seen[driver] = observed.get("demo", {})
            seen[driver]["log"] = "clean" if log.ok else log.detail.splitlines()[0]

        print("\nTwo virtual machines boot Debian's kernel (emulated, half a minute).")
        print(f"{OURS} in one of them:", flush=True)
        other = threading.Thread(target=run, args=[C], daemon=True)
        other.start()
        run(OURS, print_bytes)
        print(f"\n{C} in the other one ...", flush=True)
        other.join()
    lines = rows(seen[OURS], seen[C])
    print("\n" + table.text(("", OURS, C, ""), lines))
    unexpected = sum(line[-1] != "ok" for line in lines)
    took = f"({time.monotonic() - start:.0f} s)"
    if unexpected:
        print(f"{unexpected} lines are not as expected; the logs are in {shown(results)} {took}.")
        return 1
    print(
        f"{OURS} did as {C} does: it woke both functions for QEMU, reset their bus once, "
        f"when the last one was closed, and put both back into D3hot {took}."
    )
    return 0
