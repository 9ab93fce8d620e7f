# SPDX-License-Identifier: GPL-2.0
"""Tests of docs.py and prose.py, in a scratch repository."""

import subprocess

from . import docs, prose
from .scratch import Scratch

SOURCES = {
    "reset.rs": "fn find_obstacle() {}\nstruct Unused;\n// needs_reset",
    "Makefile": "test:\n\ttools/run $(T)\n",
    "bindings/helpers.c": 'module_param(nointxmask, bool, 0644); "reset of %s done: %d functions"',
    "tools/run": "#!/bin/bash\n# Runs.\nlast_release --list\n",
}
GOOD = """find_obstacle() in reset.rs and ``bindings/helpers.c``, ``Unused`` and ``needs_reset``,
``make test T=last_release``, ``tools/run --list``, vfio_pci_rs.nointxmask=1, ``/sys/no/file.c``"""
BAD = """find_stranger() in resets.rs and ``bindings/no.c``, ``Used`` and ``needed_reset``,
``make tests X=last_release T=first_release``, ``tools/runs --lists``, vfio_pci_rs.nointx=1"""
BAD_NAMES = """find_stranger resets.rs bindings/no.c Used needed_reset
tests X=last_release T=first_release tools/runs --lists nointx"""
BAD_PROSE = "Gives [`EBUSY`] to whoever has it reset. It is told what is of its own."


class Repository(Scratch):
    def setUp(self):
        super().setUp()
        subprocess.run(["git", "init", "-q", self.directory], check=True)
        for name, text in SOURCES.items():
            self.write(name, text)

    def test_names(self):
        names = docs.Names(self.directory)
        self.assertEqual(docs.unknown(GOOD, names), [])
        self.assertCountEqual([name for _, name in docs.unknown(BAD, names)], BAD_NAMES.split())

    def test_made_up_function_fails(self):
        self.write("README.md", "SPDX-License-Identifier\nfind_stranger()")
        stale = docs.results(self.directory)[0]
        self.assertEqual((stale.ok, stale.detail), (False, "README.md: function find_stranger"))

    def test_messages(self):
        good, bad = "bus reset of bus 01 done: 2 functions", "bus reset of bus 01 lost: 2 functions"
        found = docs.unknown_messages(f"``{good}``\n``{bad}``", SOURCES["bindings/helpers.c"])
        self.assertEqual(found, [bad])

    def test_idioms(self):
        texts = {"a.rs": f"// {BAD_PROSE}", "b.c": f"/*\n * {BAD_PROSE}\n */"}
        texts |= {"c.py": f'"""{BAD_PROSE}"""', "d.sh": f"# {BAD_PROSE}", "e.md": BAD_PROSE}
        for name, text in texts.items():
            hits = prose.count([self.write(name, text)])
            self.assertEqual([len(found) for found in hits.values()], [1] * len(hits), name)
        good = 'let x = "// whoever"; // Returns [`EBUSY`] for a function that has been reset.'
        self.assertFalse(any(prose.count([self.write("f.rs", good)]).values()))

    def test_limits_and_private_paths(self):
        self.assertTrue(all(result.ok for result in prose.results(self.directory)))
        self.write("a.rs", "// Gives [`EBUSY`].")
        self.write("b.rs", "// See /ho" + "me/someone.")
        found = [result.ok for result in prose.results(self.directory)]
        self.assertEqual(found, [False, True, True, False])
