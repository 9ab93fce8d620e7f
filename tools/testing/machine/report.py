# SPDX-License-Identifier: GPL-2.0
"""The results of tests in the guest, as events; lab/src/report.rs describes them."""

import json
import os
import subprocess
import time
import traceback
from pathlib import Path

REBOOT = "reboot"


class Report:
    """The file of the events. Owns the test that runs, and what those of earlier boots left."""

    def __init__(self, plan, is_new):
        self.path = Path(os.environ["RESULTS"]) / "tools.events.jsonl"
        self.failed, self.test = False, None
        if is_new:
            self.write("plan", tests=plan)
        else:
            self.failed = '"ok": false' in self.path.read_text()

    def write(self, event, **more):
        with open(self.path, "a") as file:
            file.write(json.dumps({"event": event, "test": self.test} | more) + "\n")

    def run(self, function, driver):
        """Runs a test, function(report, driver), and returns its answer.

        That is REBOOT, a function that boots the machine, or None.
        """
        self.test, start, answer = function.__name__, time.monotonic(), None
        print(f"# {self.test}", flush=True)
        self.write("start")
        try:
            answer = function(self, driver)
        except Exception:
            self.check("runs to its end", False, traceback.format_exc())
        took = round(time.monotonic() - start, 1)
        self.write("end", seconds=took)
        print(f"# {self.test} took {took} s", flush=True)
        return answer

    def check(self, what, holds, why=""):
        self.failed |= not holds
        print(f"    {'ok' if holds else 'not ok'} {what} {'' if holds else why}", flush=True)
        more = {} if holds else {"why": str(why)}
        self.write("check", what=what, ok=bool(holds), **more)
        return holds

    def eq(self, what, expected, got):
        return self.check(what, expected == got, f"expected {expected} got {got}")

    def seen(self, key, value, compared=False):
        """Observes a value, which must be that of vfio-pci in its place if `compared`."""
        print(f"    {key}: {value}", flush=True)
        self.write("observe", key=key, value=str(value), compared=compared)


def run(*command, ok=True, limit=600, **options):
    """Runs a command and returns its output. Raises if it fails, unless `ok` is None."""
    start, line = time.monotonic(), " ".join(map(str, command))
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ended = subprocess.run(
        list(map(str, command)), text=True, timeout=limit, check=False, **pipes | options
    )
    print(f"    $ {line} ({time.monotonic() - start:.1f} s)", flush=True)
    if ok is not None and (ended.returncode == 0) != ok:
        raise RuntimeError(f"'{command}' ended with {ended.returncode}: {ended.stdout}")
    return ended.stdout


def wait_for(what, condition, limit=180):
    """Waits until condition() is true and returns its value; raises after `limit` seconds."""
    end = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {limit} s")
        time.sleep(0.1)
    return value
