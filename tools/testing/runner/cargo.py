# SPDX-License-Identifier: GPL-2.0
"""Runs cargo in the workspace tools/testing. Owns its target directories, and a lock for each."""

import json
import os
import tomllib

from . import CACHE, IN_ROOT, REPO, TESTING
from .artifact import locked, remove


def manifest(directory=TESTING):
    return tomllib.loads((directory / "Cargo.toml").read_text())


def members():
    return [TESTING / member for member in manifest()["workspace"]["members"]]


MESSAGES = "--message-format=json-render-diagnostics"
# Seconds for any one command: a test that hangs must not hang all others. Cold builds take minutes.
LIMIT = 1800


def cargo(run, what, *arguments, target="target", cwd=TESTING, **variables):
    """Runs cargo by `run`, a Steps, and returns its output."""
    directory = CACHE / (target if IN_ROOT else f"{target}-host")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory.name):
        _forget_other_clone(directory)
        settings = {"CARGO_TARGET_DIR": str(directory), "CARGO_TERM_COLOR": "never"} | variables
        command = ["timeout", LIMIT, "cargo", *arguments]
        return run(what, *command, cwd=cwd, env=os.environ | settings)


def programs(messages):
    """Returns the programs of a build, by their names, from the lines of cargo for programs."""
    found = (json.loads(line) for line in messages.splitlines() if line.startswith('{"reason"'))
    built = (message for message in found if message.get("executable"))
    return {program["target"]["name"]: program["executable"] for program in built}


def _forget_other_clone(directory):
    """Removes what cargo knows of our packages if they were built from another clone.

    Cargo compares time stamps only, and all clones are at the same path inside the root.
    """
    clone, stamp = os.environ.get("HOST_REPO", str(REPO)), directory / "clone"
    if stamp.exists() and stamp.read_text() == clone:
        return
    for name in (manifest(member)["package"]["name"] for member in members()):
        for known in directory.glob(f"**/.fingerprint/{name}-*"):
            remove(known)
    stamp.write_text(clone)
