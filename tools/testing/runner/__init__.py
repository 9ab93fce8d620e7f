# SPDX-License-Identifier: GPL-2.0
"""Builds, runs and reports everything of this repository that is no driver. Started by tools/run.

Owns the names that all modules share: where things are, and which files the driver is.
"""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
# Set by tools/enter: the name of the Debian root that this runs in. Without it, this is the host.
ROOT_KEY = os.environ.get("ROOT_KEY", "")
IN_ROOT = bool(ROOT_KEY)
CACHE = Path("/cache") if IN_ROOT else Path(os.environ["CACHE"])
TESTING = REPO / "tools/testing"

# The driver, as patterns of Path.glob(); a directory is all of it.
DRIVER = ("Makefile", "Kconfig", "*.rs", "reflck", "vfio", "bindings")


class Failure(Exception):
    """A command cannot go on, for the reason in one sentence; `output` is what a program said about it."""

    def __init__(self, sentence, output=""):
        super().__init__(sentence)
        self.output = output

    def end_of_output(self):
        """Returns the last lines of the output, without those of cargo that are for programs."""
        return [line for line in self.output.splitlines() if not line.startswith('{"reason"')][-40:]


def driver_files(repo=REPO):
    """Returns the paths of DRIVER that exist in `repo`, sorted; directories stand for their content."""
    return sorted(path for pattern in DRIVER for path in repo.glob(pattern))


# What is where for the user, by the variable that says so.
HOST_PATHS = {"/cache": "HOST_CACHE", "/src": "HOST_REPO", "/tmp/OUT": "HOST_OUT", "/tmp/KSRC": "HOST_KSRC"}


def shown(path):
    """Returns `path` as the user knows it, outside the root."""
    path = str(path)
    for inside, variable in HOST_PATHS.items():
        if variable in os.environ and (path == inside or path.startswith(inside + "/")):
            return os.environ[variable] + path[len(inside) :]
    return path
