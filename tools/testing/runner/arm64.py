# SPDX-License-Identifier: GPL-2.0
"""Guests of arm64, emulated: `make test ARCH=arm64 T=NAME`.

Nothing of their Debian can run here. So it is only unpacked, and guest-init is its first process.
clang links programs with its libraries.
"""

import os
from pathlib import Path

from . import ARCH, layers, machine
from .artifact import artifact, recipe

TARGET = "aarch64-unknown-linux-gnu"
PACKAGES = (
    "bash", "busybox-static", "coreutils", "dash", "grep", "iproute2", "kmod", "libc-bin", "mount",
    "pciutils", "procps", "python3", "qemu-system-x86", "sed", "util-linux",
    # To build programs.
    "libc6-dev", "libgcc-14-dev", "libstd-rust-dev", "uuid-dev",
    "linux-binary-{kernel}", "linux-modules-{kernel}", "linux-headers-{kernel}",
)  # fmt: skip
UNPACK = ("mmdebstrap", "--mode=root", "--variant=extract", "--architectures=arm64")
UNPACK += ("--aptopt=APT::Install-Recommends \"false\"", *machine.UNWANTED)
# Debian's gcc cannot mark the targets of branches in a kernel. Its ftrace finds no place behind the
# mark of a module that clang made, and disables itself.
CONFIG = "# CONFIG_ARM64_BTI_KERNEL is not set\n"


def root():
    """Returns the directory of the Debian, whose kernel has the version of the root's."""
    [kernel] = Path("/usr/lib/modules").iterdir()
    name = kernel.name.replace("amd64", "arm64")
    packages = [package.format(kernel=name) for package in PACKAGES]

    def unpack(new, run):
        sources = "/etc/apt/sources.list", "/etc/apt/sources.list.d/backports.list"
        where = machine.RELEASE, new / "root", *sources
        command = *UNPACK, f"--include={','.join(packages)}", *where
        run("unpack a Debian for arm64", *layers.building(*command))
        with open(new / f"root/usr/lib/modules/{name}/config", "a") as config:
            config.write(CONFIG)

    inputs = [repr((packages, UNPACK, CONFIG)), recipe(unpack)]
    return artifact("debian", inputs, unpack) / "root"


def line(topology, modules, results, memory, more):
    """Returns the command that boots a guest, as vm.line() does for this machine's architecture."""
    init = ["init=/src/tools/testing/guest-init", *more]
    boot = machine.qemu(topology, modules / "vmlinuz", init, memory)
    binds = {"usr/lib/modules": modules.parent, "cache": "/cache"}
    emulator = layers.layer("emulator", ("qemu-system-arm",))
    return layers.above(emulator, *machine.sandbox(root(), results, binds), *boot)


def linked_with():
    """Sets the variables of cargo and of the selftests' makefiles. Returns them as inputs."""
    if not ARCH:
        return []
    libraries = root() / f"usr/lib/rustlib/{TARGET}/lib"
    link = f"--target={TARGET}", f"--sysroot={root()}", "-fuse-ld=lld"
    flags = [f"-L{libraries}", *(f"-Clink-arg={flag}" for flag in link)]
    cargo = f"CARGO_TARGET_{TARGET.upper().replace('-', '_')}"
    variables = {
        "CARGO_BUILD_TARGET": TARGET,
        f"{cargo}_LINKER": "clang",
        f"{cargo}_RUSTFLAGS": " ".join(flags),
        "USERCFLAGS": f"--sysroot={root()}",
        "USERLDFLAGS": "-fuse-ld=lld",
    }
    os.environ.update(variables)
    return [repr(variables)]
