# SPDX-License-Identifier: GPL-2.0
"""`make bench`: measures the driver beside vfio-pci, and beside itself with one global mutex.

Each guest has the devices of one topology and measures on them; the drivers take turns.
"""

import json
import os
import time
from pathlib import Path

from . import CACHE, kernel, report, shown, suites
from .artifact import locked, remove, say
from .check import stop_on_signals

# What each guest measures.
GUESTS = {
    "bus": "bus,selftest,data_path",
    "buses": "buses",
    "vfs": "vfs",
    "dirty": "dirty",
    "scale": "scale",
    "probe": "probe",
}


def bench(_):
    stop_on_signals()
    start = time.monotonic()
    out = Path(os.environ.get("OUT", CACHE / "results/bench"))
    results = CACHE / "results/bench-guests"
    with locked("bench"):
        remove(results)
        out.mkdir(parents=True, exist_ok=True)
        parts, failed = [], 0
        for guest, charts in GUESTS.items():
            suite = suites.bench(guest, charts, limit=3600)
            made = {need: getattr(kernel, need[0])(*need[1:]) for need in suite.needs(False)}
            say(f"Measuring {charts.replace(',', ', ')} ...")
            directory = results / guest
            directory.mkdir(parents=True)
            for result in (r for r in suite.run(directory, made, False) if not r.passed()):
                say(f"  {guest}: {result.name}: {result.detail}")
                failed += 1
            if (directory / "bench.json").exists():
                parts.append(json.loads((directory / "bench.json").read_text()))
        if not parts:
            return 1
        note = f"virtual machines that are emulated on a host with {os.cpu_count()} processors"
        print(report.write(parts, out, note))
    print(
        f"The benchmark has taken {time.monotonic() - start:.0f} s; its report is "
        f"{shown(out / 'benchmark.md')}, its data are in {shown(results)}."
    )
    return 1 if failed else 0


def add_parser(subparsers):
    parser = subparsers.add_parser("bench", help="measure the driver; the report goes to $OUT")
    parser.set_defaults(run=bench)
