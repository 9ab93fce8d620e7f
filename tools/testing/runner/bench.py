# SPDX-License-Identifier: GPL-2.0
"""`make bench`: measures the driver beside vfio-pci, and beside itself with one global mutex.

Each guest has the devices of one topology and measures on them; the drivers take turns.
"""

import json
import os
from pathlib import Path

from . import CACHE, report, shown, suites
from .check import results_of, run_in


def bench():
    failed, parts = 0, []
    out = Path(os.environ.get("OUT", CACHE / "results/benchmark"))
    out.mkdir(parents=True, exist_ok=True)
    with results_of("bench") as results:
        for guest in suites.BENCHES:
            directory, failures = run_in(results, suites.bench(guest, limit=3600))
            failed += failures
            if (directory / "bench.json").exists():
                parts.append(json.loads((directory / "bench.json").read_text()))
    if not parts:
        return 1
    print(report.write(parts, out))
    print(f"The report is in {shown(out)}, its data are in {shown(results)}.")
    return 1 if failed else 0
