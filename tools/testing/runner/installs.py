# SPDX-License-Identifier: GPL-2.0
"""Tests of the packages, `package` and others: installed, upgraded, removed and purged.

The machine is a fresh Debian with kernels. A layer over it takes the changes. Guests boot it.
"""

import re
import shutil
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from . import CACHE, Failure, kinds, layers, packages, shown
from .artifact import Steps, artifact, locked, recipe, remove, say
from .machine import qemu, sandbox
from .results import attempt, count

RELEASE, BACKPORTS = "trixie", "trixie-backports"
INCLUDED = "ca-certificates,initramfs-tools,kmod,systemd-sysv,udev,zstd"
# What apt would have to download in the tests.
LATER = "dkms bc bindgen bison dwarves flex libelf-dev libssl-dev perl rust-src rustc python3"
NEXT = "1.1"
# Files that change without us. What dpkg and apt remember of a purged package is theirs.
CHANGING = "/var/cache /var/log /var/lib/apt /var/lib/dpkg /tmp /proc /dev /run /etc/ld.so.cache"
# The owner of the key that is enrolled: any.
FIRMWARE, OWNER = "/usr/share/OVMF/OVMF_", "605dab50-e046-4300-abb6-3dd810dd8b23"
KERNELS_OWN = {"kernel/drivers/vfio/pci"}


def bwrap(*root):
    return ["bwrap", *root, "--unshare-pid", "--die-with-parent", *layers.SANDBOX]


def fresh():
    """Returns a directory with the root of a Debian with two kernels, and their names.

    It has Debian's newest kernel, and apt has the one before it at hand, with headers and sources.
    """

    def make(new, run):
        root = new / "root"
        options = ["--mode=root", "--variant=minbase", f"--include={INCLUDED}"]
        options += ["--dpkgopt=force-unsafe-io", "--aptopt=APT::Install-Recommends false"]
        run("bootstrap a fresh Debian", *layers.building("mmdebstrap", *options, RELEASE, root))
        # The mirror is the one that our own root has.
        shutil.copy("/etc/apt/sources.list.d/backports.list", root / "etc/apt/sources.list.d")
        inside = bwrap("--bind", root, "/")
        run("", *inside, "apt-get", "update")
        names = run("", *inside, "apt-cache", "search", "--names-only",
                    r"^linux-headers-7[0-9.]*\+deb13-amd64$")  # fmt: skip
        found = re.findall(r"^linux-headers-(\S+)", names, re.MULTILINE)
        found.sort(key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
        [last] = (path.name for path in Path("/usr/lib/modules").iterdir())
        older = found[: found.index(last)]
        before = [name for name in older if short(name) != short(last)][-1]
        (new / "kernels").write_text(f"{before} {last}\n")
        install = [*inside, "apt-get", "install", "--yes"]
        run(f"install {last}", *install, "--target-release", BACKPORTS, f"linux-image-{last}")
        for kernel in before, last:
            wanted = [f"linux-image-{kernel}", f"linux-headers-{kernel}", *LATER.split()]
            wanted += source_of(run, inside, kernel)
            run(f"download {kernel}", *install, "--download-only", *wanted)

    return artifact("fresh", [recipe(make, source_of), INCLUDED, LATER], make)


def source_of(run, inside, kernel):
    """Returns apt's names of the packages with the source of a kernel."""
    shown = run("", *inside, "apt-cache", "show", f"linux-headers-{kernel}")
    [version] = set(re.findall(r"^Version: (\S+)", shown, re.MULTILINE))
    return [f"linux-source={version}", f"linux-source-{short(kernel)}={version}"]


def short(kernel):
    """Returns the version in the name of a kernel's source."""
    return ".".join(kernel.split(".")[:2])


@dataclass(frozen=True)
class Boot(kinds.Machine):
    """A boot of a Machine, which changes nothing of it, and the test of its vfio-pci."""

    command: str = "python3 -m machine in-place loaded"

    def line(self, devices, made, directory):
        root = sandbox(made["root",], directory, {}, made["upper",])
        return [*root, *qemu(devices, made["kernel",])]


BOOT_OURS = Boot("boot-in-place")
BOOT_C = replace(BOOT_OURS, name="boot-c", command="python3 -m machine c loaded")


@dataclass(frozen=True)
class SecureBoot(Boot):
    """The same by firmware that boots nothing but signed kernels."""

    # The variables of the firmware, beside the kernel.
    keys: Path | None = None

    def line(self, devices, made, directory):
        shutil.copy(self.keys, directory)
        flash, code = "if=pflash,format=raw", signing() / f"upper{FIRMWARE}CODE_4M.secboot.fd"
        devices.arguments += [
            "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
            "-drive", f"{flash},unit=0,readonly=on,file={code}",
            "-drive", f"{flash},unit=1,file=/results/{self.keys.name}",
        ]  # fmt: skip
        made = made | {("kernel",): self.keys.with_name("vmlinuz")}
        return super().line(devices, made, directory)


def signing():
    return layers.layer("signing", ("ovmf", "python3-virt-firmware", "sbsigntool"))


class Machine:
    """A fresh Debian, and the changes to it."""

    def __init__(self, directory):
        self.steps = Steps("package")
        self.layer, self.root = directory, fresh() / "root"
        self.before, self.kernel = (fresh() / "kernels").read_text().split()
        for name in "upper", "work":
            (directory / name).mkdir()

    def __call__(self, script, what="", status=0):
        """Runs a script, which must end with this status, and returns its output."""
        upper, work, binds = self.layer / "upper", self.layer / "work", []
        layers = ["--overlay-src", self.root, "--overlay", upper, work, "/"]
        for version in packages.VERSION, NEXT:
            binds += ["--ro-bind", packages.packages(version), f"/mnt/{version}"]
        if status:
            script = f"set +e; ({script}); [ $? = {status} ]"
        return self.steps(what, *bwrap(*layers, *binds), "sh", "-ec", script)

    def source(self, kernel):
        return " ".join(source_of(self.steps, bwrap("--bind", self.root, "/"), kernel))

    def install(self, kind, version=packages.VERSION, more=""):
        common, debs = (f"/mnt/{version}/vfio-pci-rs-{name}*.deb" for name in ("common", kind))
        return self(f"apt-get install --yes {common} {debs} {more}", f"install {kind} {version}")

    def directories(self, kernel):
        """Returns the directories of the modules that modprobe vfio-pci loads."""
        loaded = self(f"modprobe -S {kernel} -D vfio-pci")
        found = re.findall(r"^insmod \S*/lib/modules/[^/]+/(\S+)/vfio-pci\S*\.ko", loaded, re.M)
        return set(found)

    def expect(self, kernel, directories):
        """Fails unless modprobe loads vfio-pci from there, and modinfo and the alias are its."""
        found = self.directories(kernel)
        if found != directories:
            raise Failure(f"modprobe loads vfio-pci of {kernel} from {found}, not {directories}")
        said = self(f"modinfo -k {kernel} -F description vfio-pci")
        if ("Rust" in said) != (directories != KERNELS_OWN):
            raise Failure(f"modinfo says of vfio-pci of {kernel}: {said}")
        aliases = self(f"modprobe -S {kernel} -R vfio_pci:v00008086d000010C9sv0sd0bc02sc00i00")
        if "vfio_pci" not in aliases.split():
            raise Failure(f"the alias vfio_pci: leads to {aliases}")

    def boots(self, kernel, boot):
        """Fails unless the test of a Boot with this kernel passes."""
        upper = self.layer / "upper"
        images = (root / f"boot/vmlinuz-{kernel}" for root in (upper, self.root))
        made = {("root",): self.root, ("upper",): upper}
        made["kernel",] = next(filter(Path.exists, images))
        say(f"  boot {kernel} ...")
        directory = self.steps.log.with_name(f"{boot.name}-{kernel}")
        remove(directory)
        directory.mkdir()
        counts, lines = count(boot.run(directory, made))
        where = f"{kernel} has failed, its logs are in {shown(directory)}"
        holds(not counts[False], where, "\n".join(lines))

    def files(self):
        """Returns the names of all files but CHANGING, with the content of modules and settings."""
        skipped = " -o ".join(f"-path {path}" for path in CHANGING.split())
        listed = self(f"find / -xdev \\( {skipped} \\) -prune -o -print")
        kinds = "-type f ! -name '*.bin' ! -name 'ld.so*'"
        content = self(f"find /etc /lib/modules/*/ /usr/src -xdev {kinds} -exec sha256sum {{}} +")
        return {*listed.splitlines(), *content.splitlines()}


def same(before, after):
    if before != after:
        lines = [f"+ {name}" for name in sorted(after - before)]
        lines += [f"- {name}" for name in sorted(before - after)]
        raise Failure("files are not as they were", "\n".join(lines))


def holds(condition, sentence, output=""):
    if not condition:
        raise Failure(sentence, output)


def in_initramfs(machine):
    listed = machine(f"lsinitramfs /boot/initrd.img-{machine.kernel}")
    return set(re.findall(r"lib/modules/[^/]+/(\S+)/vfio-pci\.ko", listed))


def modules_package(machine):
    """The modules go in place of vfio-pci, into the initramfs too, and leave nothing."""
    ours = {"updates/vfio-pci-rs"}
    machine("apt-get install --yes python3", "install python3")
    machine("echo vfio-pci >>/etc/initramfs-tools/modules")
    machine(f"update-initramfs -u -k {machine.kernel}")
    before = machine.files()
    machine.expect(machine.kernel, KERNELS_OWN)
    holds(in_initramfs(machine) == KERNELS_OWN, "the initramfs has no vfio-pci of the kernel")
    said = machine.install("modules")
    holds(f"These modules are for the kernel {machine.kernel}" in said, "it says not so", said)
    machine.expect(machine.kernel, ours)
    holds(in_initramfs(machine) == ours, "the initramfs has another vfio-pci")
    said = machine(f"vfio-pci-doctor --kernel {machine.kernel} || [ $? = 1 ]")
    holds("modprobe vfio-pci loads vfio-pci-rs" in said, "the doctor does not see it", said)
    machine.install("modules", NEXT)
    machine.expect(machine.kernel, ours)
    machine("apt-get remove --yes 'vfio-pci-rs-modules-*'", "remove them")
    machine.expect(machine.kernel, KERNELS_OWN)
    holds(in_initramfs(machine) == KERNELS_OWN, "the initramfs has not gone back")
    machine("apt-get purge --yes 'vfio-pci-rs-*'", "purge them")
    same(before, machine.files())


def dkms_package(machine):
    """DKMS builds the modules, signs them, and does so again for a newer kernel."""
    ours, before, kernel = {"updates/dkms"}, machine.before, machine.kernel
    install = "apt-get install --yes"
    machine(f"{install} linux-image-{before}", f"install {before}")
    files = machine.files()
    # In one transaction, as README says, but for this kernel.
    said = machine.install("dkms", more=f"linux-headers-{before} {machine.source(before)}")
    for step in "unpacks", "prepares", "builds":
        holds(f"vfio-pci-rs: {step}" in said, f"it does not say that it {step}", said)
    machine.expect(before, ours)
    machine.expect(kernel, KERNELS_OWN)
    for name in "vfio-pci", "vfio-pci-core", "vfio-pci-igd", "vfio_iommu_type1":
        machine(f"modinfo -k {before} {name} | grep ^sig_key:")
        machine(f"modinfo -k {before} -n {name} | grep /updates/dkms/")
    size = int(machine("du -sk /var/lib/dkms/vfio-pci-rs").split()[0])
    holds(size < 8192, f"it keeps {size} KiB")
    machine.boots(before, BOOT_OURS)
    headers = f"linux-headers-{kernel} {machine.source(kernel)}"
    machine(f"{install} {headers}", f"upgrade to {kernel}")
    machine.expect(kernel, ours)
    machine.expect(before, ours)
    machine.boots(kernel, BOOT_OURS)
    skips(machine)
    machine("apt-get purge --yes 'vfio-pci-rs-*'", "purge it")
    for name in before, kernel:
        machine.expect(name, KERNELS_OWN)
    machine.boots(kernel, BOOT_C)
    # Headers have come since.
    added = {line for line in machine.files() - files if "vfio" in line}
    left = {line for line in added if "/linux-headers-" not in line and "/include/" not in line}
    holds(not left, "files are left", "\n".join(left))


# Kernels that cannot have the modules, a change of their configuration, and the reason.
UNFIT = (
    ("6.12.1+deb13-amd64", "", "it is older than 7.2"),
    ("7.3.99", "s/^CONFIG_RUST=y//", "it is configured without Rust"),
    ("7.3.99", "s/^CONFIG_VFIO_PCI=m/CONFIG_VFIO_PCI=y/", "its vfio-pci is not a module"),
    ("7.3.99", "s/\\(TEXT=.rustc\\) 1[^ ]*/\\1 1.99.0/", "it was compiled by 'rustc 1.99.0"),
    ("7.3.99", "", "it is not from a package of Debian"),
)


def skips(machine):
    """Fails unless kernels that cannot have the modules are skipped, with one sentence."""
    sources = f"/usr/src/vfio-pci-rs-{packages.VERSION}"
    for kernel, change, reason in UNFIT:
        where = f"/lib/modules/{kernel}/build"
        said = machine(
            f"mkdir -p {where}; sed '{change}' /lib/modules/{machine.kernel}/build/.config"
            f" >{where}/.config; cd /tmp; {sources}/build {kernel}; status=$?;"
            f" rm -r /lib/modules/{kernel}; exit $status", status=77)  # fmt: skip
        sentence = f"vfio-pci-rs: cannot be built for the kernel {kernel}, "
        sentence += "which keeps its own vfio-pci"
        is_one = said.startswith(f"{sentence}: {reason}") and said.count("\n") == 1
        holds(is_one, f"looked for '{reason}'", said)
    source = f"linux-source-{short(machine.before)}"
    machine(f"apt-get remove --yes {source}")
    arguments = f"-m vfio-pci-rs -v {packages.VERSION} -k {machine.before}"
    machine(f"dkms unbuild {arguments}")
    said = machine(f"dkms install {arguments}", status=77)
    holds(f"install {source} of the version" in said, "it does not name the source", said)
    machine.expect(machine.before, KERNELS_OWN)


def secure_boot(machine):
    """The kernel loads the modules that DKMS signed, and not those without a signature."""
    kernel, files, layer = machine.kernel, machine.layer, signing()
    machine.install("dkms", more=f"linux-headers-{kernel} {machine.source(kernel)}")
    key, mok, keys = files / "key.pem", files / "upper/var/lib/dkms/mok", files / "keys.fd"
    key.write_text(ssl.DER_cert_to_PEM_cert(mok.with_suffix(".pub").read_bytes()))
    # In place of shim, the firmware knows DKMS's key, which signs the kernel as well.
    enrol = ["--input", f"{FIRMWARE}VARS_4M.ms.fd", "--output", keys, "--add-db", OWNER, key]
    machine.steps("", *layers.above(layer, "virt-fw-vars", *enrol))
    sign = ["--key", mok.with_suffix(".key"), "--cert", key, "--output", files / "vmlinuz"]
    image = machine.root / f"boot/vmlinuz-{kernel}"
    machine.steps("", *layers.above(layer, "sbsign", *sign, image))
    boot = SecureBoot("boot-signed", keys=keys)
    machine.boots(kernel, boot)
    machine.install("modules")
    rejected = "python3 -m machine in-place rejected"
    machine.boots(kernel, replace(boot, name="boot-unsigned", command=rejected))


TESTS = {function.__name__: function for function in (modules_package, dkms_package, secure_boot)}


def inputs():
    made = packages.packages(), packages.packages(NEXT), fresh()
    parts = Machine, Boot, SecureBoot, signing, bwrap, same, in_initramfs, skips
    code = recipe(*TESTS.values(), *parts)
    return [*map(str, made), code, repr(UNFIT), *BOOT_OURS.inputs({})]


def results(test):
    """Returns the Results of a test, on a machine that is fresh."""
    directory = CACHE / "package-test"
    with locked("package"):
        remove(directory)
        directory.mkdir()
        try:
            return [attempt(test, lambda: TESTS[test](Machine(directory)))]
        finally:
            remove(directory)
