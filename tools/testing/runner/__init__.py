# SPDX-License-Identifier: GPL-2.0
"""Builds, runs and reports the tests of the driver. Started by tools/run.

Owns the names that all modules share: where things are, and which files the driver is.
"""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
# Set by tools/enter: the name of the Debian root that this runs in. Without it, this is the host.
ROOT_KEY = os.environ.get("ROOT_KEY", "")
IN_ROOT = bool(ROOT_KEY)
# The architecture of kernels, programs and guests: "arm64", or "" for this machine's, whose cache
# has a directory for arm64. The kernel's makefiles read both variables.
ARCH = os.environ.get("ARCH", "")
if ARCH:
    os.environ["LLVM"] = "1"
CACHE = Path("/cache", ARCH) if IN_ROOT else Path(os.environ["CACHE"])
TESTING = REPO / "tools/testing"

# The driver, as patterns of Path.glob(); a directory is all of it.
DRIVER = ("Makefile", "Kconfig", "*.rs", "reflck", "vfio", "bindings")


class Failure(Exception):
    """A command cannot go on, for the reason in one sentence.

    `output` is that of the program that failed.
    """

    def __init__(self, sentence, output=""):
        super().__init__(sentence)
        self.output = output

    def explanation(self):
        """Returns the end of the output, without cargo's lines for programs, and the sentence."""
        lines = [line for line in self.output.splitlines() if not line.startswith('{"reason"')]
        return "\n".join([*lines[-40:], str(self)])


def patches():
    """Returns the patches of the kernel, in their order."""
    return sorted((REPO / "patches").glob("*.patch"))


def driver_files(repo=REPO):
    """Returns the paths of DRIVER that exist in `repo`; directories stand for their content."""
    return sorted(path for pattern in DRIVER for path in repo.glob(pattern))


# The variables with the host's names of directories.
HOST_PATHS = {"/cache": "HOST_CACHE", "/src": "HOST_REPO"}
HOST_PATHS |= {"/tmp/OUT": "HOST_OUT", "/tmp/KSRC": "HOST_KSRC"}


def shown(path):
    """Returns `path` as the user knows it, outside the root."""
    path = str(path)
    for inside, variable in HOST_PATHS.items():
        if variable in os.environ and (path == inside or path.startswith(inside + "/")):
            return os.environ[variable] + path[len(inside) :]
    return path
