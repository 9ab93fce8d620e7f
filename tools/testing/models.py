# SPDX-License-Identifier: GPL-2.0
"""The model check of reflck.rs (tools/testing/reflck/models): runs the models, then each of the
mutants of reflck.rs in mutants.toml, which the model that it names has to notice. Prints KTAP.

Runs in the build root, with the repository at /src; tools/testing/models starts it.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

SOURCE = pathlib.Path("/src")
CRATES = pathlib.Path("tools/testing/reflck")
# What a model is compiled from, beside reflck.rs; and with what.
SOURCES = ["vfio/address.rs", CRATES / "src/vfio", CRATES / "models/src"]
PACKAGES = ["reflck.rs", "vfio", CRATES]
# Where the mutants are made. Cargo does not tell one tree from another by where it is, so the path is
# always the same, and has a target directory of its own.
TREE = pathlib.Path("/tmp/mutants")
TARGET = os.path.join(os.environ["CARGO_TARGET_DIR"], "mutants")
# A mutant may keep its model busy for ever; one that is noticed is so within seconds.
LIMIT = 120


class Report:
    """KTAP, as the results come in."""

    def __init__(self, count):
        self.number = 0
        self.failed = 0
        print("KTAP version 1")
        print(f"1..{count}", flush=True)

    def result(self, passed, what):
        self.number += 1
        self.failed += not passed
        print(f"{'ok' if passed else 'not ok'} {self.number} {what}", flush=True)


def run(*command, **kwargs):
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **kwargs
    )


def known_models():
    text = (SOURCE / CRATES / "models/src/models.rs").read_text()
    return re.findall(r'\bmodel(?:_of_three)?\("(\w+)"', text)


def run_models(report, models):
    """Runs the models, side by side. Each says how many interleavings it has gone through."""
    package = ["--package", "vfio-pci-rs-reflck-models"]
    output = run("cargo", "test", "--locked", "--quiet", *package, "--", "--nocapture", cwd=SOURCE / CRATES).stdout
    counts = dict(re.findall(r"model (\w+): (\d+ interleavings.*)", output))
    for line in output.splitlines() if len(counts) < len(models) else []:
        print(f"# {line}")
    for model in models:
        report.result(model in counts, f"{model}: {counts.get(model, 'not all interleavings')}")
    bound = os.environ.get("MODEL_PREEMPTIONS")
    bounded = f", in those of three threads at most {bound} preemptions" if bound else ""
    print(f"# {sum(int(count.split()[0]) for count in counts.values())} interleavings{bounded}")


def copy(names, to):
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, to / name)
        else:
            shutil.copy(SOURCE / name, to / name)


def build_mutants(mutants):
    """Builds all mutants at once, as test targets of a copy of the package. Returns the program of each
    that could be built, by its name, and what the compiler said."""
    source = (SOURCE / "reflck.rs").read_text()
    package = TREE / "package"
    copy(PACKAGES, package)
    manifest = (SOURCE / CRATES / "models/Cargo.toml").read_text()
    for i, mutant in enumerate(mutants):
        if source.count(mutant["old"]) != 1:
            continue
        tree = TREE / f"mutant{i}"
        copy(SOURCES, tree)
        (tree / "reflck.rs").write_text(source.replace(mutant["old"], mutant["new"]))
        manifest += f'\n[[test]]\nname = "mutant{i}"\npath = "{tree / CRATES}/models/src/lib.rs"\n'
    (package / CRATES / "models/Cargo.toml").write_text(manifest)
    built = subprocess.run(
        ["cargo", "build", "--locked", "--tests", "--keep-going", "--package", "vfio-pci-rs-reflck-models"]
        + ["--message-format", "json-render-diagnostics"],
        cwd=package / CRATES,
        # Each of them is a crate of another name, see .cargo/config.toml.
        env=os.environ | {"CARGO_TARGET_DIR": TARGET, "CARGO_PROFILE_TEST_DEBUG": "0", "RUSTC_BOOTSTRAP": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    programs = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
    return programs, built.stderr


def run_mutant(program, model):
    """Returns whether the model notices the mutant, and what it or the mutant says."""
    if program is None:
        return False, "it cannot be put into reflck.rs, or not be compiled"
    try:
        ended = run(program, "--nocapture", "--exact", f"models::{model}", timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False, f"the model has not come to an end in {LIMIT} s"
    # What is dropped after that may panic again, which ends the program.
    panicked = re.search(rf"^thread 'models::{model}' panicked at .*:\n(.*)$", ended.stdout, re.MULTILINE)
    if ended.returncode == 0 or panicked is None:
        return False, "the model passes"
    return True, panicked.group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models-only", action="store_true", help="leave the mutants out")
    parser.add_argument("--preemptions", type=int, help="how many there may be with three threads; any number if not given")
    arguments = parser.parse_args()
    if arguments.preemptions is not None:
        os.environ["MODEL_PREEMPTIONS"] = str(arguments.preemptions)

    models = known_models()
    mutants = [] if arguments.models_only else tomllib.loads((SOURCE / CRATES / "models/mutants.toml").read_text())["mutant"]
    report = Report(len(models) + len(mutants))
    run_models(report, models)
    programs, said = build_mutants(mutants) if mutants else ({}, "")
    for line in said.splitlines() if len(programs) < len(mutants) else []:
        print(f"# {line}")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        ends = pool.map(run_mutant, [programs.get(f"mutant{i}") for i in range(len(mutants))], [m["model"] for m in mutants])
        for mutant, (noticed, said) in zip(mutants, ends, strict=True):
            print(f"# {said}")
            report.result(noticed, f"{mutant['name']}: noticed by {mutant['model']}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
