# SPDX-License-Identifier: GPL-2.0
"""The model check of the reflck: `make models [M=NAME]`.

loom runs each model of tools/testing/reflck through every interleaving of its threads, and shuttle
draws schedules of more threads, which have too many. The scenes of tools/testing/liveness are
models of longer runs, in which every wait must end. The mutants of
tools/testing/defects/mutants.toml are bugs in the reflck, each of which the model, or the unit test,
that it names must notice.
"""

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
from .cargo import MESSAGES, cargo, programs
from .results import Result

CRATE = "tools/testing/reflck"
SCENES = "tools/testing/liveness"
MUTANTS = TESTING / "defects/mutants.toml"
# `make check` runs models of three threads with at most this many preemptions.
PREEMPTIONS = 4
# A mutant may keep its test busy for ever; one that notices it does so within seconds.
LIMIT = 120
BUILD = ["build", "--tests", "--locked", "--keep-going", "--package", "reflck", MESSAGES]
VARIABLES = {"CARGO_PROFILE_TEST_DEBUG": "0", "RUSTC_BOOTSTRAP": "1"}
LOOM = {"RUSTFLAGS": "--cfg loom"}
SHUTTLE = {"RUSTFLAGS": "--cfg shuttle", "CARGO_PROFILE_TEST_OPT_LEVEL": "2"}
RANDOM = "models::schedules::random_schedules"
# The directories in which mutants are built: for models, unit tests and random schedules.
MUTANT_TARGETS = {"target-mutants": LOOM, "target-mutants-unit": {}, "target-shuttle": SHUTTLE}
# How many schedules `make check` draws, and the long form.
SCHEDULES, MORE_SCHEDULES = 10_000, 1_000_000
BUILD_SCENES = ["build", "--release", "--locked", "--bins", "--package", "liveness", MESSAGES]


def inputs():
    driver = [REPO / "reflck.rs", REPO / "reflck", REPO / "vfio/dynamic_id.rs", REPO / "vfio/record.rs"]
    crates = REPO / CRATE, REPO / SCENES, TESTING / "Cargo.lock"
    return [*driver, *crates, MUTANTS, Path(__file__)]


def results(long=False, only=None):
    """Returns the Result of each model and mutant, or of those named `only`."""
    run = Steps("models")
    program = build(run, "build the models", TESTING, "target-models", LOOM)["reflck"]
    listed = re.findall(r"^(models::\S+): test$", run("", program, "--list"), re.MULTILINE)
    mutants = mutants_of(listed)
    models = {last(path): [program, "--nocapture", "--exact", path] for path in listed}
    if only in (None, last(RANDOM)):
        built = build(run, "build the random schedules", TESTING, "target-shuttle", SHUTTLE)
        models[last(RANDOM)] = [built["reflck"], "--nocapture", "--exact", RANDOM]
    scenes = programs(cargo(run, "build the scenes", *BUILD_SCENES))["liveness"]
    models |= {name: [scenes, name] for name in run("", scenes).split()}
    models = {name: command for name, command in models.items() if only in (None, name)}
    if only:
        mutants = [mutant for mutant in mutants if only in (mutant["name"], last(mutant["test"]))]
        if not models and not mutants:
            raise Failure(f"looked for a model or a mutant of the name {only}")
    bounds = {"LOOM_MAX_PREEMPTIONS": PREEMPTIONS, "SCHEDULES": SCHEDULES}
    if long:
        bounds = {"SCHEDULES": MORE_SCHEDULES}
    environment = os.environ | {name: str(bound) for name, bound in bounds.items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda model: run_model(*model, environment), models.items()))
        for target, variables in MUTANT_TARGETS.items():
            some = [mutant for mutant in mutants if target_of(mutant) == target]
            with tempfile.TemporaryDirectory() as trees:
                built = build_mutants(run, some, Path(trees), target, variables) if some else []
                found += pool.map(run_mutant, some, built, [environment] * len(some))
    return found


def last(path):
    return path.rpartition("::")[2]


def mutants_of(models):
    """Returns the mutants, each with the path of the test that must notice it."""
    paths, found = {last(path): path for path in (*models, RANDOM)}, []
    for file, mutants in tomllib.loads(MUTANTS.read_text()).items():
        for name, mutant in mutants.items():
            test = paths.get(mutant.get("model"), "a model that does not exist")
            found.append({"name": name, "file": file, "new": "", "test": test} | mutant)
    return found


def target_of(mutant):
    if mutant["test"] == RANDOM:
        return "target-shuttle"
    return "target-mutants" if "model" in mutant else "target-mutants-unit"


def build(run, what, workspace, target, variables):
    """Builds the tests of the crate, and returns the programs by their names."""
    try:
        said = cargo(run, what, *BUILD, target=target, cwd=workspace, **VARIABLES | variables)
    except Failure as failure:
        said = failure.output
        # Some of the mutants may not compile.
        if '"reason":"build-finished"' not in said or "mutants" not in what:
            raise
    return programs(said)


def run_model(name, command, environment):
    """Runs a model, which says how many interleavings or states there were."""
    ended = run_test(command, environment)
    count = re.search(rf"model {name}: (\d+ (?:interleavings|schedules|states).*)", ended.stdout)
    if ended.returncode or not count:
        return Result(f"model {name}", False, "\n".join(ended.stdout.splitlines()[-40:]))
    return Result(f"model {name}", True, count[1])


def run_test(command, environment, **options):
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=environment, text=True, check=False, **pipes, **options)


def build_mutants(run, mutants, trees, target, variables):
    """Builds all mutants at once, as targets of a copy of the package.

    Returns the program of each, or a sentence.
    """
    copy_tree(trees / "package")
    package = trees / "package" / CRATE / "Cargo.toml"
    manifest = package.read_text()
    problems = {}
    for number, mutant in enumerate(mutants):
        name = f"mutant{number}"
        text = (REPO / mutant["file"]).read_text()
        if (times := text.count(mutant["old"])) != 1:
            problems[name] = f"its `old` text is in {mutant['file']} {times} times, and not once"
            continue
        copy_tree(trees / name)
        (trees / name / mutant["file"]).write_text(text.replace(mutant["old"], mutant["new"]))
        manifest += f'\n[[test]]\nname = "{name}"\npath = "{trees / name / CRATE}/src/lib.rs"\n'
    package.write_text(manifest)
    built = build(run, "build the mutants", trees / "package/tools/testing", target, variables)
    names = [f"mutant{number}" for number in range(len(mutants))]
    return [problems.get(name) or built.get(name, "it does not compile") for name in names]


def copy_tree(to):
    """Copies the reflck and the workspace, whose crate finds the driver's files by links."""
    ignored = shutil.ignore_patterns("target", "__pycache__")
    shutil.copytree(TESTING, to / "tools/testing", symlinks=True, ignore=ignored)
    for directory in "reflck", "vfio":
        shutil.copytree(REPO / directory, to / directory)
    shutil.copy(REPO / "reflck.rs", to)


def run_mutant(mutant, program, environment):
    """Checks that the test notices the mutant: it panics."""
    name = f"mutant {mutant['name']}: noticed by {mutant['test']}"
    if not program.startswith("/"):
        return Result(name, False, program)
    try:
        command = [program, "--nocapture", "--exact", mutant["test"]]
        ended = run_test(command, environment, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return Result(name, False, f"the test did not end within {LIMIT} s")
    # Drops after that may panic again, which ends the program.
    panicked = re.search(r"^thread '.*' panicked at .*:\n(.*)$", ended.stdout, re.MULTILINE)
    is_noticed = ended.returncode and panicked
    return Result(name, bool(is_noticed), panicked[1] if is_noticed else "the test passes")
