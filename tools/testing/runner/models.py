# SPDX-License-Identifier: GPL-2.0
"""The model check of the reflck: `make models [M=NAME]`.

loom runs each model of tools/testing/reflck through every interleaving of its threads. The mutants of
tools/testing/defects/mutants.toml are bugs in the reflck, each of which the model, or the unit test, that
it names must notice.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import REPO, TESTING, Failure
from .artifact import Steps
from .cargo import cargo
from .results import report

CRATE = "tools/testing/reflck"
MUTANTS = TESTING / "defects/mutants.toml"
# Of models with three threads, `make check` runs the interleavings with at most this many preemptions.
PREEMPTIONS = 4
# A mutant may keep its test busy for ever; one that notices it does so within seconds.
LIMIT = 120
BUILD = ["build", "--tests", "--locked", "--keep-going", "--package", "reflck", "--message-format=json-render-diagnostics"]
VARIABLES = {"CARGO_PROFILE_TEST_DEBUG": "0", "RUSTC_BOOTSTRAP": "1"}
LOOM = {"RUSTFLAGS": "--cfg loom"}


def inputs(_):
    """Returns the inputs of all models and mutants."""
    return [REPO / "reflck.rs", REPO / "reflck", REPO / "vfio/dynamic_id.rs", REPO / CRATE, TESTING / "Cargo.lock", MUTANTS]


def results(long=False, only=None):
    """Returns (name, ok, detail) for each model and mutant, or for those named `only`."""
    run = Steps("models")
    program = build(run, "build the models", TESTING, "target-models", LOOM)["reflck"]
    models = re.findall(r"^models::(\w+): test$", run("", program, "--list"), re.MULTILINE)
    mutants = tomllib.loads(MUTANTS.read_text())["mutant"]
    if only:
        mutants = [mutant for mutant in mutants if only in (mutant["name"], test_of(mutant).rpartition("::")[2])]
        models = [model for model in models if model == only]
        if not models + mutants:
            raise Failure(f"looked for a model or a mutant of the name {only}")
    environment = os.environ | ({} if long else {"LOOM_MAX_PREEMPTIONS": str(PREEMPTIONS)})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda model: run_model(program, model, environment), models))
        for kind, target, variables in ("model", "target-mutants", LOOM), ("test", "target-mutants-unit", {}):
            some = [mutant for mutant in mutants if kind in mutant]
            with tempfile.TemporaryDirectory() as trees:
                programs = build_mutants(run, some, Path(trees), target, variables) if some else []
                found += pool.map(run_mutant, some, programs, [environment] * len(some))
    return found


def test_of(mutant):
    """Returns the path of the test that must notice a mutant."""
    return mutant["test"] if "test" in mutant else f"models::{mutant['model']}"


def build(run, what, workspace, target, variables):
    """Builds the tests of the crate, and returns the programs by their names."""
    try:
        said = cargo(run, what, *BUILD, target=target, cwd=workspace, **VARIABLES | variables)
    except Failure as failure:
        said = failure.output
        # Some of the mutants may not compile.
        if '"reason":"build-finished"' not in said or target == "target-models":
            raise
    messages = [json.loads(line) for line in said.splitlines() if line.startswith('{"reason"')]
    return {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}


def run_model(program, model, environment):
    """Runs a model, which says how many interleavings there were."""
    ended = run_test(program, f"models::{model}", environment)
    count = re.search(rf"model {model}: (\d+ interleavings.*)", ended.stdout)
    if ended.returncode or not count:
        return f"model {model}", False, "\n".join(ended.stdout.splitlines()[-40:])
    return f"model {model}", True, count[1]


def run_test(program, test, environment, **options):
    command = [program, "--nocapture", "--exact", test]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=environment, text=True, check=False, **pipes, **options)


def build_mutants(run, mutants, trees, target, variables):
    """Builds all mutants at once, as targets of a copy of the package. Returns their programs, or a sentence."""
    copy_tree(trees / "package")
    package = trees / "package" / CRATE / "Cargo.toml"
    manifest = package.read_text()
    problems = {}
    for number, mutant in enumerate(mutants):
        tree = trees / f"mutant{number}"
        text = (REPO / mutant["file"]).read_text()
        if text.count(mutant["old"]) != 1:
            problems[number] = f"looked for its `old` text once in {mutant['file']}, and it is there {text.count(mutant['old'])} times"
            continue
        copy_tree(tree)
        (tree / mutant["file"]).write_text(text.replace(mutant["old"], mutant["new"]))
        manifest += f'\n[[test]]\nname = "mutant{number}"\npath = "{tree / CRATE}/src/lib.rs"\n'
    package.write_text(manifest)
    programs = build(run, "build the mutants", trees / "package/tools/testing", target, variables)
    return [programs.get(f"mutant{n}", problems.get(n, "it does not compile")) for n in range(len(mutants))]


def copy_tree(to):
    """Copies the reflck and the workspace to `to`; the crate finds the driver's files by symbolic links."""
    shutil.copytree(TESTING, to / "tools/testing", symlinks=True, ignore=shutil.ignore_patterns("target", "__pycache__"))
    for directory in "reflck", "vfio":
        shutil.copytree(REPO / directory, to / directory)
    shutil.copy(REPO / "reflck.rs", to)


def run_mutant(mutant, program, environment):
    """Checks that the test notices the mutant: it panics."""
    name = f"mutant {mutant['name']}: noticed by {test_of(mutant)}"
    if not program.startswith("/"):
        return name, False, program
    try:
        ended = run_test(program, test_of(mutant), environment, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return name, False, f"the test did not end within {LIMIT} s"
    # Drops after that may panic again, which ends the program.
    panicked = re.search(r"^thread '.*' panicked at .*:\n(.*)$", ended.stdout, re.MULTILINE)
    if not ended.returncode or not panicked:
        return name, False, "the test passes"
    return name, True, panicked[1]


def add_parser(subparsers):
    parser = subparsers.add_parser("models", help="check the models of the reflck, and that they notice its mutants")
    parser.add_argument("name", nargs="?", help="of a model or a mutant; all if not given")
    parser.add_argument("--all", action="store_true", help="all interleavings of three threads")
    parser.set_defaults(run=lambda arguments: report("models", results(arguments.all, arguments.name)))
