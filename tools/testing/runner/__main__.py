# SPDX-License-Identifier: GPL-2.0
"""The command line: `python3 -m runner COMMAND ARGS...`."""

import argparse
import importlib
import sys

from . import Failure

# Each registers its commands by add_parser(subparsers); a command's function is its default `run`,
# gets the parsed arguments, and returns the exit status.
MODULES = ("check", "demo", "bench", "kernel", "lint", "unit", "models", "rust_analyzer", "intree", "series", "builds", "prose")


def parser():
    """Returns the parser of all commands."""
    commands = argparse.ArgumentParser(prog="tools/run", description=__doc__)
    subparsers = commands.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in MODULES:
        try:
            module = importlib.import_module(f"{__package__}.{name}")
        except ModuleNotFoundError as missing:
            if missing.name != f"{__package__}.{name}":
                raise
            continue
        module.add_parser(subparsers)
    return commands


def main():
    arguments = parser().parse_args()
    try:
        return arguments.run(arguments)
    except Failure as failure:
        print(*failure.end_of_output(), f"{arguments.command}: {failure}", sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
