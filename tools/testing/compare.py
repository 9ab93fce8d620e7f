#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compares what was observed of two drivers: `compare.py ONE OTHER` prints KTAP, a test a scenario.

Each file has lines `scenario key value`. What only one of the two has is a difference too.
"""

import sys


def load(path):
    scenarios = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            scenario, key, value = line.rstrip("\n").split(" ", 2)
            scenarios.setdefault(scenario, {})[key] = value
    return scenarios


def main():
    one, other = load(sys.argv[1]), load(sys.argv[2])
    names = sorted(one.keys() | other.keys(), key=lambda name: (len(name), name))
    if not names:
        sys.exit(f"compare.py: looked for observations in {sys.argv[1]} and {sys.argv[2]}, and found none")

    print("KTAP version 1")
    print(f"1..{len(names)}")
    for number, name in enumerate(names, start=1):
        left, right = one.get(name, {}), other.get(name, {})
        differences = [key for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
        for key in differences:
            print(f"# {key}: {left.get(key, 'nothing')} and {right.get(key, 'nothing')}")
        print(f"{'not ok' if differences else 'ok'} {number} scenario {name}")


main()
