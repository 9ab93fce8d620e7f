# SPDX-License-Identifier: GPL-2.0
"""Tests of artifact.py, in a cache and a repository of their own."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from . import Failure, artifact
from .scratch import Scratch


def fill(new, run):
    (new / "made").touch()


class Artifact(Scratch):
    def setUp(self):
        super().setUp()
        self.cache = self.directory / "cache"
        self.patch(artifact, CACHE=self.cache, REPO=self.directory, say=lambda line: None)

    def test_content_name_and_mode_are_in_the_key(self):
        path, keys = self.write("source/a"), set()
        for change in (
            lambda: None,
            lambda: path.write_text("other"),
            lambda: path.chmod(0o755),
            lambda: path.rename(path.with_name("b")),
        ):
            change()
            keys.add(artifact.key([path.parent]))
        self.assertEqual(len(keys), 4)
        self.write("source/c.o")
        self.assertIn(artifact.key([path.parent]), keys)

    def test_key_depends_on_texts_apart(self):
        self.assertNotEqual(artifact.key(["ab", "c"]), artifact.key(["a", "bc"]))

    def test_recipe_is_code_alone(self):
        def one():
            """Some words."""
            return 1  # and more

        self.assertEqual(artifact.recipe(one), "def one():\n    return 1")

    def test_concurrent_callers_build_once(self):
        built = []

        def build(new, run):
            fill(new, run)
            time.sleep(0.1)
            built.append(new)

        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda _: artifact.artifact("kind", ["x"], build), range(4)))
        self.assertEqual(len(built), 1)
        self.assertTrue((artifact.find("kind", ["x"]) / "made").exists())
        self.assertIsNone(artifact.find("kind", ["y"]))

    def test_failed_build_leaves_nothing_and_says_why(self):
        def build(new, run):
            fill(new, run)
            self.assertEqual(run("", "echo", "a"), "a\n")
            run("fail", "sh", "-c", "echo the reason; false")

        with self.assertRaises(Failure) as caught:
            artifact.artifact("kind", ["x"], build)
        self.assertEqual(caught.exception.output, "the reason\n")
        self.assertIn("logs/kind.log", str(caught.exception))
        self.assertEqual(list(self.cache.glob("kind-*")), [])

    def test_unused_ones_of_a_kind_are_swept(self):
        kinds = "kind", "kind-of", "kind-of-2"
        old, recent, other = (artifact.artifact(kind, ["x"], fill) for kind in kinds)
        for path in old, recent, other:
            os.utime(path, (0, 0))
        artifact.find("kind-of", ["x"])
        artifact.artifact("kind", ["y"], fill)
        self.assertEqual([path.exists() for path in (old, recent, other)], [False, True, True])

    def test_once(self):
        calls = []
        for inputs in "x", "x", "y":
            artifact.once("name", [inputs], lambda: calls.append(1))
        self.assertEqual(len(calls), 2)
