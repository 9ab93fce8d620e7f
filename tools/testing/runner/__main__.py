# SPDX-License-Identifier: GPL-2.0
"""The command line: `tools/run COMMAND ARGS...`."""

import argparse
import sys

from . import Failure, bench, builds, check, coverage, demo, intree, kernel, lint, models, modules
from . import packages, rust_analyzer, series, series_check, shown, unit

# The commands: a description, the function that returns the exit status and gets the arguments by
# their names, and these arguments.
COMMANDS = {
    "check": ("run every test", lambda: check.check(long=False)),
    "check-all": ("run every test, in its long form", lambda: check.check(long=True)),
    "test": (
        "run one scenario, selftest or suite by its name",
        check.test,
        ("name", {"nargs": "?", "default": "", "help": "one that does not exist lists them"}),
        ("--kernel", {"choices": kernel.KERNELS, "help": "default: perf if built, else debian"}),
        ("--driver", {"default": "vfio_pci_rs", "choices": ("vfio_pci_rs", "in-place", "vfio-pci")}),
    ),
    "soak": (
        "perform random operations on functions, and check the driver",
        check.soak,
        ("--kernel", {"default": "perf", "choices": kernel.KERNELS}),
        ("--modules", {"default": "rs", "help": "rs or rs+DEFECT"}),
        ("--options", {"default": "", "help": "of the program soak, such as '--seed 7 --shrink'"}),
    ),
    "modules": (
        "build a set of modules and print its directory",
        lambda on, modset: print(shown(modules.modules(on, modset))),
        ("on", {"metavar": "KERNEL", "choices": kernel.KERNELS}),
        ("modset", {"metavar": "SET", "help": "stock, fixed, core, rs, in-place or rs+DEFECT"}),
    ),
    "models": (
        "check the models of the reflck, and that they notice its mutants",
        lambda name: check.report(models.results(only=name)),
        ("name", {"nargs": "?", "help": "of a model or a mutant; all if not given"}),
    ),
    "unit": ("run the unit tests", lambda: check.report(unit.results())),
    "lint": ("check the source", lambda: check.report(lint.results())),
    "builds": (
        "build the driver in other kernel trees, by other compilers",
        lambda: check.report(builds.results()),
    ),
    "coverage": ("say which code of the driver the tests do not run", coverage.main),
    "demo": (
        "show why to use the driver, beside vfio-pci",
        demo.demo,
        ("--kernel", {"default": "debian", "choices": kernel.DEBIAN}),
    ),
    "bench": ("measure the driver; the report goes to $OUT", bench.bench),
    "deb": ("build Debian packages; they go to $OUT", packages.main),
    "intree": ("put the driver into the kernel tree $KSRC", intree.main),
    "series": ("write the driver as a patch series to $OUT", series.main),
    "series-check": (
        "check the patch series as its reviewers would",
        lambda: check.report(series_check.results()),
    ),
    "rust-analyzer": ("write rust-project.json", rust_analyzer.write),
}


def main():
    parser = argparse.ArgumentParser(prog="tools/run", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (description, run, *arguments) in COMMANDS.items():
        command = subparsers.add_parser(name, help=description)
        command.set_defaults(run=run)
        for argument, settings in arguments:
            command.add_argument(argument, **settings)
    arguments = vars(parser.parse_args())
    try:
        return arguments.pop("run")(**arguments)
    except Failure as failure:
        print(failure.explanation(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
