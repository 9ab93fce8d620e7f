# SPDX-License-Identifier: GPL-2.0
"""Writes the driver as a patch series for a kernel tree: `make series [OUT=DIR]`.

The series is patches/ and one patch for each file of tools/series.d, in their order. Such a file
begins with an SPDX line and the files of the patch, as pathspecs of git; the commit message
follows. `cover` has the subject and text of the cover letter, and names tables of the benchmark to
put in. Then git am applies the series to the pristine files, which must become the same as by
intree, with the sender as the maintainer.
"""

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import CACHE, REPO, Failure, intree, kernel, patches, shown
from .artifact import once

PARTS = REPO / "tools/series.d"
BENCHMARK = REPO / "Documentation/benchmark.rst"
NUMBERED = "[0-9][0-9][0-9][0-9]-*.patch"


def run(complaint, command, **options):
    """Runs a command, fails with `complaint` if it does, and returns its output."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if ended.returncode:
        raise Failure(complaint, ended.stdout + ended.stderr)
    return ended.stdout


def changed():
    """Returns the names of the files that the graft changes or looks for."""
    text = "".join(patch.read_text() for patch in patches())
    return {*re.findall(r"^--- a/(\S+)", text, re.MULTILINE), *intree.NEEDED}


class Repository:
    """A git repository of the files that the graft changes or looks for.

    They are copied, unless the directory exists.
    """

    def __init__(self, path, sender, more=()):
        name, email = sender
        settings = "-c", f"user.name={name}", "-c", f"user.email={email}"
        self.path, self.command = path, ["git", "-C", path, *settings]
        if not path.exists():
            for file in changed():
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(kernel.source() / file, path / file)
        self.git("init", "--quiet", "--initial-branch=series")
        present = [name for name in changed() if (path / name).exists()]
        self.git("add", "--force", "--", *present, *more)
        self.git("commit", "--quiet", "--message=Linux")
        self.git("tag", "base")

    def git(self, *arguments, **options):
        return run(f"git {arguments[0]} failed", [*self.command, *arguments], **options)


def message(part):
    """Returns a file of series.d without the lines that are not of the message."""
    return re.sub(r"\A(# .*\n)+\n*", "", part.read_text())


def letter():
    """Returns the subject and text of the cover letter."""
    text = BENCHMARK.read_text()

    def table(found):
        _, _, section = text.partition(f"\n{found[1]}\n===")
        return re.search(r"^=+ (?:.*?\n=+ ){2}[= ]*", section, re.M | re.S)[0]

    return re.sub(r"^@(.*)@$", table, message(PARTS / "cover"), flags=re.MULTILINE)


def write(out, sender):
    """Writes the series to the directory `out`, and returns the files of its patches."""
    for earlier in out.glob(NUMBERED):
        earlier.unlink()
    with tempfile.TemporaryDirectory() as directory:
        split = Repository(Path(directory, "split"), sender)
        commit(split, sender)
        version = ".".join(kernel.versions(kernel.source()))
        description = f"{letter()}\nBased on Linux {version}."
        split.git("config", "branch.series.description", description)
        kinds = ["--signoff", "--cover-letter", "--cover-from-description=subject", "--no-base"]
        kinds += ["--subject-prefix=PATCH", "--quiet", "--output-directory", out]
        split.git("format-patch", *kinds, "base")
        patches = sorted(path for path in out.glob(NUMBERED) if not path.match("0000-*"))
        prove(split, Repository(Path(directory, "applied"), sender), patches)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check_patch, patches))
    return patches


def check_patch(patch):
    """Fails if checkpatch objects to a patch, whose commit and date do not matter."""
    text = re.sub("^(From [0-9a-f]{40} |Date: ).*", "", patch.read_text(), flags=re.MULTILINE)
    arguments = ["--ignore", "FILE_PATH_CHANGES", patch]
    once(f"checkpatch {patch.name}", [text], lambda: checkpatch(arguments))


def commit(repository, sender):
    for patch in patches():
        repository.git("am", "--quiet", patch)
        repository.git("commit", "--quiet", "--amend", "--reset-author", "--no-edit")
    intree.graft(repository.path)
    entry, maintainers = intree.MAINTAINERS.splitlines()[1], repository.path / "MAINTAINERS"
    sent = f"{entry}\nM:\t{sender[0]} <{sender[1]}>\n"
    intree.put(maintainers, maintainers.read_text().replace(f"{entry}\n", sent))
    for part in sorted(PARTS.glob("[0-9]*")):
        [files] = re.findall("^# Files: (.*)", part.read_text(), re.MULTILINE)
        repository.git("add", "--", *files.split())
        repository.git("commit", "--quiet", "--file=-", input=message(part))
    left = repository.git("status", "--porcelain")
    if left:
        raise Failure("files of the graft are in no patch of the series", left)


def prove(split, applied, patches):
    """Fails unless git am of the patches leads to the same as the commits that they are from."""
    applied.git("am", "--quiet", *patches)
    if len({repository.git("rev-parse", "HEAD^{tree}") for repository in (split, applied)}) != 1:
        raise Failure("the series differs from the graft by intree")


def checkpatch(arguments):
    """Fails if checkpatch objects.

    All headers of tracepoints have open lines, and the commits of Linux are not here.
    """
    command = ["perl", kernel.source() / "scripts/checkpatch.pl", "--no-tree", "--strict"]
    command += ["--quiet", "--show-types"]
    command += ["--ignore", "OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT,UNKNOWN_COMMIT_ID", *arguments]
    run("checkpatch objects", command, cwd=REPO)


def main():
    sender = re.match(r"(.*) <(.*)>", os.environ.get("SENDER", ""))
    if not sender:
        raise Failure("needs to know who sends the series: set git's user.name and user.email")
    out = Path(os.environ.get("OUT", CACHE / "series"))
    out.mkdir(parents=True, exist_ok=True)
    patches = write(out, sender.groups())
    print(f"The series, {len(patches)} patches and a cover letter, is in {shown(out)}.")
