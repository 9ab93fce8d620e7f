# SPDX-License-Identifier: GPL-2.0
"""Things in the cache that are built once and then only read.

Owns their names, the locks around building them, the progress lines on stderr, and the clean-up.
"""

import ast
import contextlib
import fcntl
import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from . import CACHE, REPO, ROOT_KEY, Failure, shown

# Seconds without use after which an artefact goes when another of its kind is built. A guest may
# still run from one that was used.
UNUSED = 24 * 3600
# Products of tools, which may lie among the sources.
IGNORED = (".git", "__pycache__", "target", "*generated*", "*.o", "*.ko", "*.mod", "*.mod.c")
IGNORED += (".*.cmd", "*.rmeta")


def artifact(kind, inputs, build):
    """Returns the directory CACHE/KIND-KEY; build(new, run) fills it if it does not exist.

    KEY names the root and `inputs`, see key(). `run` is a Steps. A build that fails leaves nothing,
    and of two callers at a time one builds.
    """
    result = CACHE / f"{kind}-{key(inputs)}"
    if not _used(result):
        with locked(kind):
            if not _used(result):
                _build(kind, result, build)
    return result


def find(kind, inputs):
    """Returns the directory CACHE/KIND-KEY, or None if it does not exist."""
    result = CACHE / f"{kind}-{key(inputs)}"
    return result if _used(result) else None


def _build(kind, result, build):
    new = result.with_name(result.name + ".new")
    remove(new)
    new.mkdir(parents=True)
    try:
        build(new, Steps(kind))
        new.rename(result)
    except BaseException:
        remove(new)
        raise
    os.utime(result)
    for other in CACHE.glob(f"{kind}-*"):
        is_same_kind = re.fullmatch(r"[0-9a-f]{12}(\.new)?", other.name[len(kind) + 1 :])
        if is_same_kind and other.stat().st_mtime < time.time() - UNUSED:
            remove(other)


def _used(path):
    """Returns whether `path` exists, and marks it as used."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
        return True
    return False


def key(inputs):
    """Returns 12 hex digits for the root and `inputs`: the content of a Path, the text of a str."""
    digest = hashlib.sha256(ROOT_KEY.encode())
    for item in inputs:
        digest.update((tree_key([item]) if isinstance(item, Path) else item).encode() + b"\0")
    return digest.hexdigest()[:12]


def tree_key(paths):
    """Returns a key for the names in the repository, modes and contents of all files in `paths`."""
    digest = hashlib.sha256()
    for path in sorted(file for path in paths for file in files_of(path)):
        name = os.path.relpath(path, REPO)
        if path.is_symlink():
            mode, content = "link", path.readlink()
        else:
            mode = bool(path.stat().st_mode & 0o100)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{name}\0{mode}\0{content}\0".encode())
    return digest.hexdigest()


def files_of(path):
    """Returns all files of a directory, or the file itself, without the products of tools."""
    if path.is_symlink() or not path.is_dir():
        return [path]
    sources = (entry for entry in path.iterdir() if not any(map(entry.match, IGNORED)))
    return [file for entry in sources for file in files_of(entry)]


def recipe(*functions):
    """Returns the code of `functions` without comments and docstrings, as an input."""
    trees = [ast.parse(textwrap.dedent(inspect.getsource(function))) for function in functions]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return "\n".join(ast.unparse(tree) for tree in trees)


def once(name, inputs, function):
    """Calls a function that fails or passes, unless it passed on these inputs the last time."""
    stamp, wanted = CACHE / "passed" / re.sub(r"\W+", "-", name), key([*inputs, recipe(function)])
    if not stamp.exists() or stamp.read_text() != wanted:
        function()
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(wanted)


@contextlib.contextmanager
def locked(name):
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another run that builds {name} ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def say(line):
    print(line, file=sys.stderr, flush=True)


class Steps:
    """Runs the commands that build one thing. Owns its log, CACHE/logs/NAME.log."""

    def __init__(self, name):
        self.log = CACHE / "logs" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")

    def __call__(self, what, *command, **options):
        """Runs `command`, says so if `what` is not empty, and returns the command's output."""
        start = time.monotonic()
        if what:
            say(f"  {what} ...")
        command = [str(argument) for argument in command]
        with open(self.log, "r+b") as log:
            begin = log.seek(0, os.SEEK_END)
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            ended = subprocess.run(command, check=False, **pipes, **options)
            log.seek(begin)
            output = log.read().decode(errors="replace")
        if ended.returncode:
            raise Failure(f"'{what or command[0]}' failed, its log is {shown(self.log)}", output)
        if what:
            say(f"  {what}: done in {time.monotonic() - start:.1f} s")
        return output
