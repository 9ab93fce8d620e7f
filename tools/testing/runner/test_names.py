# SPDX-License-Identifier: GPL-2.0
"""Tests that what the runner's modules take from each other exists: some of it runs on demand."""

import ast
import importlib
import types
import unittest
from pathlib import Path


class Names(unittest.TestCase):
    def test_names_in_modules_exist(self):
        for path in Path(__file__).parent.glob("*.py"):
            module = importlib.import_module(f".{path.stem}", __package__)
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                    continue
                value = getattr(module, node.value.id, None)
                if isinstance(value, types.ModuleType):
                    where = f"{path.name}:{node.lineno}: {node.value.id}.{node.attr}"
                    self.assertTrue(hasattr(value, node.attr), where)
