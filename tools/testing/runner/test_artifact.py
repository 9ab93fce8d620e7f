# SPDX-License-Identifier: GPL-2.0
"""Tests of artifact.py, in a cache and a repository of their own."""

import os
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from . import Failure, artifact


def fill(new, run):
    (new / "made").touch()


class Artifact(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cache, self.repo = Path(directory.name, "cache"), Path(directory.name, "repo")
        self.repo.mkdir()
        for name, value in ("CACHE", self.cache), ("REPO", self.repo), ("say", lambda line: None):
            patch = mock.patch.object(artifact, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def source(self, name, content="text"):
        path = self.repo / "source" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path

    def key(self):
        return artifact.key([self.repo / "source"])

    def test_content_name_and_mode_are_in_the_key(self):
        path = self.source("a")
        keys = [self.key()]
        path.write_text("other")
        keys.append(self.key())
        path.chmod(0o755)
        keys.append(self.key())
        path.rename(path.with_name("b"))
        keys.append(self.key())
        self.assertEqual(len(set(keys)), 4)
        self.source("c.o")
        self.assertEqual(self.key(), keys[-1])

    def test_key_depends_on_texts_apart(self):
        self.assertNotEqual(artifact.key(["ab", "c"]), artifact.key(["a", "bc"]))

    def test_recipe_is_code_alone(self):
        def one():
            """Some words."""
            return 1  # and more

        first = artifact.recipe(one)
        self.assertEqual(first, "def one():\n    return 1")

    def test_is_built_once(self):
        built = []
        for _ in range(2):
            path = artifact.artifact("kind", ["x"], lambda new, run: built.append(fill(new, run)))
        self.assertTrue((path / "made").exists())
        self.assertEqual(len(built), 1)

    def test_concurrent_callers_build_once(self):
        built = []

        def build(new, run):
            time.sleep(0.1)
            built.append(new)

        threads = [threading.Thread(target=artifact.artifact, args=("kind", ["x"], build)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(built), 1)

    def test_failed_build_leaves_nothing_and_says_why(self):
        def build(new, run):
            fill(new, run)
            run("fail", "sh", "-c", "echo the reason; false")

        with self.assertRaises(Failure) as caught:
            artifact.artifact("kind", ["x"], build)
        self.assertEqual(caught.exception.output, "the reason\n")
        self.assertIn("logs/kind.log", str(caught.exception))
        self.assertEqual(list(self.cache.glob("kind-*")), [])

    def test_steps_return_their_own_output(self):
        run = artifact.Steps("kind")
        self.assertEqual([run("", "echo", word) for word in "ab"], ["a\n", "b\n"])

    def test_unused_ones_of_a_kind_are_swept(self):
        old, recent, other = (artifact.artifact(kind, ["x"], fill) for kind in ("kind", "kind-of", "kind-of-2"))
        for path in old, recent, other:
            os.utime(path, (0, 0))
        recent = artifact.artifact("kind-of", ["x"], fill)
        artifact.artifact("kind", ["y"], fill)
        self.assertEqual([path.exists() for path in (old, recent, other)], [False, True, True])


if __name__ == "__main__":
    unittest.main()
