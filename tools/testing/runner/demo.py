# SPDX-License-Identifier: GPL-2.0
"""`make demo`: the driver at its main job, beside vfio-pci.

Both drivers go through the same program, each in a virtual machine of its own, at the same time.
"""

import fnmatch
import threading
import time

from . import CACHE, kernel, ktap, shown, table, vm
from .artifact import locked, remove, say
from .check import print_bytes, stop_on_signals
from .suites import kernel_log

LIMIT = 600
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


def observed(directory):
    """Returns {key: value} of what a guest's program observed."""
    events = ktap.events(directory / "demo.events.jsonl")
    return {event["key"]: str(event["value"]) for event in events if event["event"] == "observe"}


def rows(ours, c):
    """Returns the rows of the table; the last cell of each is "ok" if it is as expected."""
    lines = []
    for what, key, expected, expected_of_c in ROWS:
        seen, seen_of_c = ours.get(key, "not shown"), c.get(key, "not shown")
        ok = fnmatch.fnmatchcase(seen, expected) and fnmatch.fnmatchcase(seen_of_c, expected_of_c)
        lines.append((what, seen, seen_of_c, "ok" if ok else "UNEXPECTED"))
    return lines


def demo(_):
    stop_on_signals()
    start = time.monotonic()
    say(f"Everything is in {shown(CACHE)}, and made there if it is missing.")
    with locked("demo"):
        results = CACHE / "results/demo"
        remove(results)
        program = str(kernel.programs() / "demo")
        modules = {
            "vfio_pci_rs": kernel.modules("debian", "rs"),
            "vfio-pci": kernel.modules("debian", "stock"),
        }
        seen = {}

        def guest(driver, output=None):
            directory = results / driver
            directory.mkdir(parents=True)
            command = [program, "--driver", driver]
            end = vm.run(
                vm.topology("demo"),
                modules[driver],
                command,
                directory,
                time_limit=LIMIT,
                output=output,
            )
            seen[driver] = observed(directory)
            log = kernel_log(end, [])
            seen[driver]["log"] = "clean" if log.ok else log.detail.splitlines()[0]

        print(
            "\nTwo virtual machines boot Debian's kernel (emulated, half a minute). "
            "vfio_pci_rs in one of them:",
            flush=True,
        )
        other = threading.Thread(target=guest, args=["vfio-pci"], daemon=True)
        other.start()
        guest("vfio_pci_rs", print_bytes)
        print("\nvfio-pci in the other one ...", flush=True)
        other.join()
    lines = rows(seen["vfio_pci_rs"], seen["vfio-pci"])
    print("\n" + table.text(("", "vfio_pci_rs", "vfio-pci", ""), lines))
    unexpected = sum(line[-1] != "ok" for line in lines)
    took = f"({time.monotonic() - start:.0f} s)"
    if unexpected:
        print(f"{unexpected} lines are not as expected; the logs are in {shown(results)} {took}.")
        return 1
    print(
        "vfio_pci_rs did as vfio-pci does: it woke both functions for QEMU, reset their bus once, "
        f"when the last one was closed, and put both back into D3hot {took}."
    )
    return 0


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "demo", help="show the driver with QEMU in a virtual machine, beside vfio-pci"
    )
    parser.set_defaults(run=demo)
