# SPDX-License-Identifier: GPL-2.0
"""Tests of coverage: blocks of a disassembly, and what has not run."""

import unittest

from . import REPO, coverage, patches

DISASSEMBLY = """\
Disassembly of section .text:

0000000000000000 <first>:
   0:\tpush   %rbx
   1:\tcall   6 <first+0x6>
\t\t\t2: R_X86_64_PLT32\t__sanitizer_cov_trace_pc-0x4
   6:\tcall   b <first+0xb>
\t\t\t7: R_X86_64_PLT32\tother-0x4
   b:\tcall   10 <first+0x10>
\t\t\tc: R_X86_64_PLT32\t__sanitizer_cov_trace_pc-0x4
  10:\tret
  11:\tcall   16 <first+0x16>
\t\t\t12: R_X86_64_PLT32\t__sanitizer_cov_trace_pc-0x4
  16:\tcall   1b <first+0x1b>
\t\t\t17: R_X86_64_PLT32\t_RNvNtCs2lKf6AS60Zg_4core9panicking9panic_fmt-0x4

0000000000000020 <second>:
  20:\tret

Disassembly of section .init.text:

0000000000000000 <init_module>:
   0:\tcall   5 <init_module+0x5>
\t\t\t1: R_X86_64_PLT32\t__sanitizer_cov_trace_pc-0x4
"""


class Blocks(unittest.TestCase):
    def test_each_instruction_is_in_the_block_of_the_last_call_unless_that_panics(self):
        text = {6: [0, 1, 6], 16: [11, 16]}
        self.assertEqual(coverage.blocks(DISASSEMBLY), {".text": text, ".init.text": {5: [0]}})


class Unreached(unittest.TestCase):
    def test_each_line_exists(self):
        patched = [line[1:] for patch in patches() for line in patch.read_text().splitlines()
                   if line[:1] in " +"]  # fmt: skip
        named = (item for files in coverage.UNREACHED.values() for item in files.items())
        for file, texts in named:
            path = REPO / file
            lines = path.read_text().splitlines() if path.exists() else patched
            lines = list(map(str.strip, lines))
            known = {*lines, *(f"{a} {b}" for a, b in zip(lines, lines[1:]))}
            self.assertEqual(set(texts) - known, set(), file)
