# SPDX-License-Identifier: GPL-2.0
"""A Debian 13 with systemd and the tools that assign PCI functions, and the guest that boots it.

The guest's root is an overlay over the directory that mmdebstrap makes, shared by virtiofs: what a
guest writes is gone with it, and survives a reboot of it. Its kernel is the one of a module set.
"""

import shlex
from pathlib import Path

from . import ARCH, REPO, vm
from .artifact import artifact, recipe
from .layers import building

RELEASE = "trixie"
PACKAGES = (
    "systemd-sysv", "dbus", "udev", "kmod", "python3-minimal", "iproute2", "pciutils", "procps",
    "libvirt-daemon-system", "qemu-system-x86", "driverctl", "kexec-tools",
    # testpmd, and its drivers of igb.
    "dpdk", "dpdk-dev", "librte-net-e1000-25", "librte-mempool-ring25",
)  # fmt: skip
PLAIN = (
    "systemd-sysv", "dbus", "udev", "kmod", "python3", "procps", "linux-image-{kernel}",
    # The image wants that of its own suite.
    "linux-base/trixie-backports",
)  # fmt: skip
# No documents, and no translations.
UNWANTED = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
# Units that take the emulated machine seconds, and that no test is about.
MASKED = """apt-daily.timer apt-daily-upgrade.timer serial-getty@ttyS0.service dpdk.service
    libvirt-guests.service systemd-update-done.service ldconfig.service
    systemd-journal-catalog-update.service""".split()
SYSTEMD = ["systemd.wants=machine.service", *(f"systemd.mask={unit}" for unit in MASKED)]
IN_SANDBOX = "/tmp/machine"
# vfio needs an IOMMU that remaps interrupts.
if ARCH == "arm64":
    CONSOLE, EMULATOR = "ttyAMA0", ["qemu-system-aarch64"]
    EMULATOR += ["-machine", "virt,iommu=smmuv3,gic-version=3,its=on,memory-backend=memory"]
else:
    CONSOLE, EMULATOR = "ttyS0", ["qemu-system-x86_64"]
    EMULATOR += ["-machine", "q35,kernel-irqchip=split,memory-backend=memory"]
    EMULATOR += ["-device", "intel-iommu,intremap=on,caching-mode=on"]


def plain():
    """Returns the directory of a Debian with nothing but the kernel that the modules are for."""
    return machine(PLAIN)


def machine(packages=PACKAGES):
    """Returns the directory of a Debian with `packages`, in which {kernel} is Debian's newest."""
    [kernel] = Path("/usr/lib/modules").iterdir()
    packages = [package.format(kernel=kernel.name) for package in packages]
    make = [
        "mmdebstrap", "--mode=root", "--variant=apt", "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"", "--dpkgopt=force-unsafe-io", *UNWANTED,
        f"--include={','.join(packages)}", RELEASE,
    ]  # fmt: skip

    def build(new, run):
        # Those with the backports suite, too.
        sources = "/etc/apt/sources.list", "/etc/apt/sources.list.d/backports.list"
        run("make a Debian with systemd", *building(*make, new / "root", *sources))

    return artifact("machine", [repr((packages, UNWANTED)), recipe(machine)], build) / "root"


def sandbox(root, results, binds, *layers):
    """Returns the command that runs what follows beside the guest's root, with `layers` over it.

    That has `results`, and the directories {place: path} of `binds`.
    """
    here = REPO / "tools/testing/machine/machine.service"
    binds = binds | {"src": REPO, "etc/systemd/system/machine.service": here}
    shown = (["--ro-bind", str(path), f"{IN_SANDBOX}/{place}"] for place, path in binds.items())
    sources = (["--overlay-src", str(layer)] for layer in (root, *layers))
    return [
        "bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc",
        "--perms", "1777", "--tmpfs", "/tmp",
        *sum(sources, []), "--tmp-overlay", IN_SANDBOX, *sum(shown, []),
        "--bind", str(results), f"{IN_SANDBOX}/results", "--bind", str(results), "/results",
        "--unshare-pid", "--die-with-parent", "--",
    ]  # fmt: skip


def qemu(topology, kernel, init=SYSTEMD, memory=None):
    """Returns the command that boots the machine with the image `kernel`, in the sandbox.

    init: arguments of the kernel about its first process, and others.
    """
    memory = memory or topology.memory
    arguments = [
        "root=root", "rootfstype=virtiofs", "rw", f"console={CONSOLE}", *init,
        *(argument for argument in vm.KERNEL_ARGUMENTS if not argument.startswith("virtme")),
        *topology.kernel_arguments,
    ]  # fmt: skip
    line = [
        *EMULATOR, "-accel", topology.accelerator, "-cpu", topology.cpu, "-smp", "2",
        "-m", memory, "-object", f"memory-backend-memfd,id=memory,size={memory},share=on",
        "-no-reboot", "-nodefaults", "-display", "none", "-serial", "chardev:console",
        "-chardev", "file,id=console,path=/results/console.log,append=on",
        "-chardev", "socket,id=root,path=/tmp/root.sock",
        "-device", "vhost-user-fs-pci,chardev=root,tag=root,queue-size=1024",
        *topology.arguments, "-kernel", str(kernel), "-append", " ".join(arguments),
    ]  # fmt: skip
    # virtiofsd ends with QEMU: each boot finds one without state.
    return ["sh", "-c", f"""
        while rm -f /results/reboot /tmp/root.sock
        do
            /usr/libexec/virtiofsd --socket-path /tmp/root.sock --shared-dir {IN_SANDBOX} \\
                --sandbox none --cache always &
            while ! [ -S /tmp/root.sock ]; do sleep 0.1; done
            {shlex.join(line)}
            wait
            [ -e /results/reboot ] || exit
        done"""]
