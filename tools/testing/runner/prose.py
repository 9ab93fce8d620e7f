# SPDX-License-Identifier: GPL-2.0
"""Counts phrases that the style guide in contributing.rst forbids, in comments and documents."""

import re
import subprocess
from pathlib import Path

from . import CACHE, REPO
from .results import wrong

_OBJECT = r"(?:the|an?|its?|their|each|every|all|them|one|none|something|\[?`\w+`\]?)"
_DONE = r"(?:bind|begin|load|take|done|tried|made|run|\w+ed|reset|bound|unbound|undone)"
IDIOMS = {
    "gives E...": r"\b[Gg]ives? (?:\[`|`+)?E[A-Z]{2}|\b[Gg]ives \[`",
    "whoever": r"\b(?:[Ww]hoever|[Ss]omebody|[Nn]obody)\b",
    "what is": r"\b[Ww]hat (?:is|was|are|were|has|had|have|it|they)\b(?![^.]*\?)",
    "has X done": rf"\bHas (?!been\b)|\b(?:has|have) {_OBJECT} (?:\w+ )?{_DONE}\b(?! of\b)",
    "is told": r"\b(?:is|are|was|were|be) told\b|\b[Tt]ells?\b",
    "of its own": r"\bof (?:our|its|their) own\b",
}
# The most that an area may have of each idiom, in the order of IDIOMS.
LIMITS = {"driver": (0, 0, 0, 0, 1, 1), "docs": (0, 0, 0, 0, 0, 0), "tools": (0, 0, 20, 2, 2, 22)}
# Paths of a developer's machine, and hosts of registries and mirrors.
FORBIDDEN = (
    r"/(?:root|home)/\w+|/work/\w+"
    r"|://[^\s/]*\b(?:artifactory|nexus|registry|mirrors?|pypi|crates|npm|proxy|deb)\b"
)

STRING = r'"(?:\\.|[^"\\])*"'
C_COMMENT = r"//[^\n]*|/\*[\s\S]*?\*/"
COMMENT = r'^\s*"""[\s\S]*?"""|(?:^|(?<=\s))#(?:[ \t][^\n]*|$)'
LITERAL = r'``[^`]*``|`[^`]+`|"[^"]*"'


def tracked(repo=REPO):
    """Returns the paths of the files of the repository, lock files and links aside."""
    command = ["git", "-c", f"safe.directory={repo}", "-C", repo]
    command += ["ls-files", "-coz", "--exclude-standard"]
    names = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    paths = (repo / name for name in names.split("\0") if name and not name.endswith(".lock"))
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def comments(path, text):
    """Returns the comment lines of a source, or the lines of a document without literals."""
    if path.suffix in (".rst", ".md"):
        errno = r"`+E[A-Z]+`"
        kept = re.sub(LITERAL, lambda found: found[0] if re.match(errno, found[0]) else "", text)
        return kept.splitlines()
    if path.suffix in (".rs", ".c", ".h"):
        found = re.findall(C_COMMENT, re.sub(STRING, '""', text))
    elif path.suffix in (".py", ".sh", ".toml", ".config") or text.startswith("#!"):
        found = re.findall(COMMENT, text, re.M)
    else:
        found = []
    return [line.strip(' \t#/*!"') for comment in found for line in comment.splitlines()]


def count(paths):
    """Returns the list of (path, phrase) of each idiom."""
    hits = {idiom: [] for idiom in IDIOMS}
    for path in paths:
        found = " ".join(comments(path, path.read_text(errors="replace")))
        for idiom, pattern in IDIOMS.items():
            hits[idiom] += [(path, match[0]) for match in re.finditer(pattern, found)]
    return hits


def areas(repo=REPO):
    result = {name: [] for name in LIMITS}
    for path in tracked(repo):
        top = path.relative_to(repo).parts[0]
        if path.suffix in (".rst", ".md"):
            result["docs"].append(path)
        elif path != Path(__file__):
            result["tools" if top in ("tools", ".ci") else "driver"].append(path)
    return result


def results(repo=REPO):
    found = []
    for name, paths in areas(repo).items():
        hits, excess = count(paths), []
        for idiom, limit in zip(IDIOMS, LIMITS[name]):
            if len(hits[idiom]) > limit:
                excess.append(f"'{idiom}': {len(hits[idiom])}, at most {limit}")
                excess += [f"  {path.relative_to(repo)}: {phrase}" for path, phrase in hits[idiom]]
        found.append(wrong(f"prose of {name}", excess))
    private = [
        f"{path.relative_to(repo)}: {match}"
        for path in tracked(repo)
        for match in re.findall(FORBIDDEN, path.read_text(errors="replace"))
    ]
    return found + [wrong("names of a developer's machine", private)]


def pristine():
    """Returns the kernel source if the cache has one, or None."""
    trees = sorted(CACHE.glob("source-*/MAINTAINERS"))
    return trees[-1].parent if trees else None
