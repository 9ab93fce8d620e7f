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
    """The file of the events. Owns what the tests of earlier boots left in it."""

    def __init__(self, plan, is_new):
        self.path = Path(os.environ["RESULTS"]) / "tools.events.jsonl"
        self.failed = False
        if is_new:
            self.write(event="plan", tests=plan)
        else:
            self.failed = '"ok": false' in self.path.read_text()

    def write(self, **event):
        with open(self.path, "a") as file:
            file.write(json.dumps(event) + "\n")

    def run(self, function, driver):
        """Runs a test, function(test, driver), and returns its answer: REBOOT, or nothing."""
        name, start, answer = function.__name__, time.monotonic(), None
        print(f"# {name}", flush=True)
        test = Test(name, self)
        self.write(event="start", test=name)
        try:
            answer = function(test, driver)
        except Exception:
            test.check("runs to its end", False, traceback.format_exc())
        self.write(event="end", test=name, seconds=round(time.monotonic() - start, 1))
        print(f"# {name} took {time.monotonic() - start:.1f} s", flush=True)
        return answer


class Test:
    """A test that is running."""

    def __init__(self, name, report):
        self.name, self.report = name, report

    def check(self, what, holds, why=""):
        self.report.failed |= not holds
        print(f"    {'ok' if holds else 'not ok'} {what} {'' if holds else why}", flush=True)
        more = {} if holds else {"why": str(why)}
        self.report.write(event="check", test=self.name, what=what, ok=bool(holds), **more)
        return holds

    def eq(self, what, expected, got):
        return self.check(what, expected == got, f"expected {expected} got {got}")

    def seen(self, key, value, compared=False):
        """Observes a value, which must be that of vfio-pci in its place if `compared`."""
        print(f"    {key}: {value}", flush=True)
        value = {"key": key, "value": str(value), "compared": compared}
        self.report.write(event="observe", test=self.name, **value)


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
