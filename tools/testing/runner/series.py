# SPDX-License-Identifier: GPL-2.0
"""Writes the driver as a patch series for a kernel tree: `make series [OUT=DIR]`.

The series is patches/ and one patch for each file of tools/series.d, in their order. Such a file begins
with an SPDX line and the files of the patch, as pathspecs of git; the commit message follows. `cover` has
the subject and text of the cover letter. Then git am applies the series to the pristine files, which must
become what intree makes of them.
"""

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import CACHE, REPO, Failure, intree, kernel, shown
from .artifact import once

PARTS = REPO / "tools/series.d"
NUMBERED = "[0-9][0-9][0-9][0-9]-*.patch"


class Repository:
    """A git repository of the files that the graft changes or looks for."""

    def __init__(self, path, sender):
        name, email = sender
        names = {f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in (("NAME", name), ("EMAIL", email))}
        self.path, self.environment = path, os.environ | names | {"GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
        path.mkdir()
        touched = re.findall(r"^--- a/(\S+)", "".join(patch.read_text() for patch in kernel.patches()), re.MULTILINE)
        for file in {*touched, *intree.NEEDED}:
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kernel.source() / file, path / file)
        self.git("init", "--quiet", "--initial-branch=series")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=Linux")
        self.git("tag", "base")

    def git(self, *arguments, **options):
        """Runs git, and returns its output."""
        command = ["git", "-C", self.path, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment, **options)
        if ended.returncode:
            raise Failure(f"git {arguments[0]} failed", ended.stdout + ended.stderr)
        return ended.stdout


def message(part):
    """Returns a file of series.d without the lines that are not of the message."""
    return re.sub(r"\A(# .*\n)+\n*", "", part.read_text())


def write(out, sender):
    """Writes the series to the directory `out`, and returns how many patches it has."""
    others = [path for path in out.iterdir() if not path.match(NUMBERED)]
    if others:
        raise Failure(f"looked for an empty directory, or one with an earlier series, and {shown(others[0])} is there")
    for path in out.iterdir():
        path.unlink()
    with tempfile.TemporaryDirectory() as directory:
        split = Repository(Path(directory, "split"), sender)
        commit(split)
        split.git("config", "branch.series.description", f"{message(PARTS / 'cover')}\nBased on Linux {version()}.")
        kinds = ["--signoff", "--cover-letter", "--cover-from-description=subject", "--no-base", "--subject-prefix=PATCH"]
        split.git("format-patch", "--quiet", *kinds, "--output-directory", out, "base")
        patches = sorted(path for path in out.glob(NUMBERED) if not path.match("0000-*"))
        prove(Path(directory), patches, sender)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check_patch, patches))
    return len(patches)


def check_patch(patch):
    """Fails if checkpatch objects to a patch, whose commit and date do not matter."""
    text = re.sub("^(From [0-9a-f]{40} |Date: ).*", "", patch.read_text(), flags=re.MULTILINE)
    once(f"checkpatch {patch.name}", [text], lambda: checkpatch(["--ignore", "FILE_PATH_CHANGES", patch]))


def commit(repository):
    """Makes a commit of each patch of the series."""
    for patch in kernel.patches():
        repository.git("am", "--quiet", patch)
        repository.git("commit", "--quiet", "--amend", "--reset-author", "--no-edit")
    intree.graft(repository.path)
    for part in sorted(PARTS.glob("[0-9]*")):
        [files] = re.findall("^# Files: (.*)", part.read_text(), re.MULTILINE)
        repository.git("add", "--", *files.split())
        repository.git("commit", "--quiet", "--file=-", input=message(part))
    left = repository.git("status", "--porcelain")
    if left:
        raise Failure("files of the graft are in no patch of the series", left)


def prove(directory, patches, sender):
    """Fails unless git am of the patches gives what intree does."""
    applied, grafted = (Repository(directory / name, sender) for name in ("applied", "grafted"))
    applied.git("am", "--quiet", *patches)
    intree.graft(grafted.path)
    difference = ["diff", "--recursive", "--brief", "--exclude=.git", applied.path, grafted.path]
    ended = subprocess.run(difference, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failure("the series does not give what intree does", ended.stdout + ended.stderr)


def checkpatch(arguments):
    """Fails if checkpatch objects. All headers of tracepoints have open lines; MAINTAINERS has one entry."""
    perl = ["perl", kernel.source() / "scripts/checkpatch.pl", "--no-tree", "--strict", "--quiet", "--show-types"]
    command = [*perl, "--ignore", "OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT", *arguments]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failure("checkpatch objects", ended.stdout + ended.stderr)


def version():
    """Returns the version of Debian's source."""
    text = (kernel.source() / "Makefile").read_text()
    return ".".join(re.findall(r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", text, re.MULTILINE))


def add_parser(subparsers):
    def run(_):
        sender = re.match(r"(.*) <(.*)>", os.environ.get("SENDER", ""))
        if not sender:
            raise Failure("needs to know who sends the series: set git's user.name and user.email")
        out = Path(os.environ.get("OUT", CACHE / "series"))
        out.mkdir(parents=True, exist_ok=True)
        count = write(out, sender.groups())
        print(f"The series, {count} patches and a cover letter, is in {shown(out)}; it gives what make intree gives.")

    subparsers.add_parser("series", help="write the driver as a patch series").set_defaults(run=run)
