# SPDX-License-Identifier: GPL-2.0
"""The events that a guest's program writes, one JSON object a line; see lab/src/report.rs."""

import json

from .results import Result, wrong


def read(path):
    """Returns the events in a file, which may not exist. The last line may be incomplete."""
    events = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def results(path):
    """Returns the Results of a program: one for each test that was planned or started."""
    tests, ended = {}, set()
    for event in read(path):
        kind, name = event["event"], event.get("test")
        if kind == "plan":
            tests.update((planned, []) for planned in event["tests"])
            continue
        checks = tests.setdefault(name, [])
        if kind == "check":
            checks.append(Result(event["what"], event["ok"], event.get("why") or ""))
        elif kind == "skip":
            checks.append(Result(event["what"], None, event["why"]))
        elif kind == "end":
            ended.add(name)
    for name, checks in tests.items():
        if name not in ended:
            checks.append(Result("runs to its end", False, "the test has no end"))
        elif all(check.ok is None for check in checks):
            checks.append(Result("asserts something", False, "the test asserts nothing"))
    return [
        Result(name, all(check.ok is not False for check in checks), "", checks)
        for name, checks in tests.items()
    ]


def observations(path, only_compared=True):
    """Returns {test: {key: value}} of the observations, those that drivers must share or all."""
    tests = {}
    for event in read(path):
        if event["event"] == "observe" and event["compared"] >= only_compared:
            tests.setdefault(event["test"], {})[event["key"]] = str(event["value"])
    return tests


def compare(one, other):
    """Returns a Result for each test of two sets of observations. A missing one differs."""
    found = []
    for name in one | other:
        left, right = one.get(name, {}), other.get(name, {})
        differ = [key for key in left | right if left.get(key) != right.get(key)]
        values = ((key, left.get(key, "nothing"), right.get(key, "nothing")) for key in differ)
        found.append(wrong(name, ["{}: {} and {}".format(*three) for three in values]))
    return found
