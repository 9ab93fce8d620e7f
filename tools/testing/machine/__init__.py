# SPDX-License-Identifier: GPL-2.0
"""Tests of tools that assign PCI functions, in the guest of runner/machine.py."""
