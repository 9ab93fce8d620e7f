# SPDX-License-Identifier: GPL-2.0
"""What `make unit`, `make lint` and `make models` print. (name, ok, detail): ok is None if it was skipped."""

from . import CACHE, ktap, shown
from .artifact import remove


def report(command, results):
    """Prints failures, skips and totals, leaves CACHE/results/COMMAND.ktap, and returns the exit status."""
    for name, ok, detail in results:
        if ok is None:
            print(f"skipped: {name}: {detail}")
        elif not ok:
            print(f"failed: {name}", *(f"    {line}" for line in detail.splitlines()), sep="\n")
    path = CACHE / f"results/{command}.ktap"
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    ktap.write(path, results)
    passed, failed, skipped = (sum(result[1] is ok for result in results) for ok in (True, False, None))
    print(f"{passed} passed, {failed} failed, {skipped} skipped; the results are in {shown(path)}.")
    return 1 if failed or not passed else 0
