# SPDX-License-Identifier: GPL-2.0
"""Tests of tools/package/doctor, on files like those of a machine."""

import contextlib
import io
import shutil
from importlib.machinery import SourceFileLoader
from types import ModuleType

from . import REPO
from .scratch import Scratch

doctor = ModuleType("doctor")
SourceFileLoader("doctor", str(REPO / "tools/package/doctor")).exec_module(doctor)
KERNEL = "7.3.4+deb13-amd64"
FUNCTION = "0000:01:00.0"


class Doctor(Scratch):
    def setUp(self):
        super().setUp()
        self.write("sys/kernel/iommu_groups/1/type", "DMA")
        self.write("dev/iommu")
        self.install("vfio-pci", description=doctor.OURS, sig_id="PKCS#7")
        self.write("sys/module/vfio_pci/parameters/strict", "N\n")
        self.write("sys/module/vfio_pci_core/taint", "OE\n")
        self.bind(FUNCTION, "vfio-pci", group=1, reset_method="flr bus")

    def install(self, module, **fields):
        """Makes a module with these fields the only one of KERNEL."""
        modules = {(KERNEL, module, field): value for field, value in fields.items()}
        find = lambda machine, *asked: modules.get((machine.release, *asked), "")
        self.patch(doctor.Machine, modinfo=find)

    def link(self, name, target):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        (self.directory / target).mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.directory / target)

    def bind(self, function, driver, group, reset_method=None):
        """Adds a function of a bus, bound to a driver."""
        real = f"sys/devices/pci0000:00/0000:00:01.0/{function}"
        self.write(f"{real}/class", "0x020000\n")
        if reset_method is not None:
            self.write(f"{real}/reset_method", f"{reset_method}\n")
        if driver == "vfio-pci":
            self.write(f"{real}/vfio-dev/vfio0/dev")
        if driver:
            self.link(f"{real}/driver", f"sys/bus/pci/drivers/{driver}")
        self.link(f"{real}/iommu_group", f"sys/kernel/iommu_groups/{group}")
        self.link(f"sys/kernel/iommu_groups/{group}/devices/{function}", real)
        self.link(f"sys/bus/pci/devices/{function}", real)

    def ask(self, *functions, kernel=KERNEL):
        """Returns the exit status and the output."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = doctor.main(["--root", str(self.directory), "--kernel", kernel, *functions])
        return status, output.getvalue()

    def lacks(self, sentence, *functions, **options):
        """Checks that one thing is missing."""
        status, output = self.ask(*functions, **options)
        self.assertEqual(status, 1, output)
        self.assertIn(sentence, output)
        faults = [line for line in output.splitlines() if not line.startswith("modprobe ")]
        self.assertEqual(len(faults), 1, output)

    def test_nothing_is_missing(self):
        expected = "modprobe vfio-pci loads vfio-pci-rs.\nNothing is missing.\n"
        self.assertEqual(self.ask(), (0, expected))
        self.install("vfio-pci-rs", description=doctor.OURS)
        self.assertEqual(self.ask(FUNCTION), (0, expected.replace("vfio-pci ", "vfio-pci-rs ")))
        (self.directory / "dev/iommu").unlink()
        self.assertIn("no iommufd", self.ask()[1])

    def test_iommu(self):
        (self.directory / "sys/bus/pci/devices" / FUNCTION).unlink()
        shutil.rmtree(self.directory / "sys/kernel/iommu_groups")
        self.lacks("No IOMMU is on.")

    def test_kernel(self):
        self.lacks("6.12.1 is too old", kernel="6.12.1")
        self.install("vfio-pci", description="C")
        self.lacks(f"Install vfio-pci-rs-modules-{KERNEL}")
        self.write(f"boot/config-{KERNEL}", "CONFIG_A=y\n# CONFIG_RUST is not set\n")
        self.lacks("is configured without Rust")

    def test_loaded_modules(self):
        self.write("sys/module/vfio_iommu_type1/taint", "\n")
        self.lacks("vfio_iommu_type1 that is loaded is the kernel's own")
        self.write("sys/module/vfio_pci_core/taint", "\n")
        self.lacks("vfio_pci_core that is loaded is the kernel's own")
        (self.directory / "sys/module/vfio_pci/parameters/strict").unlink()
        self.lacks("vfio-pci that is loaded is the kernel's own")

    def test_signatures(self):
        self.install("vfio-pci", description=doctor.OURS)
        for name, content in (
            (doctor.SECURE_BOOT, "\6\0\0\0\1"),
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("sys/module/module/parameters/sig_enforce", "Y\n"),
        ):
            path = self.write(name, content)
            self.lacks("Secure Boot is on")
            path.unlink()
        self.write(doctor.SECURE_BOOT, "\6\0\0\0\0")
        self.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        self.assertEqual(self.ask()[0], 0)

    def test_functions(self):
        self.assertEqual(self.ask("0000:99:00.0"), (2, "There is no PCI function 0000:99:00.0.\n"))
        self.bind("0000:01:00.1", "", group=2, reset_method="flr")
        self.lacks("0000:01:00.1 is not bound to a driver", "0000:01:00.1")
        self.bind("0000:01:00.1", "igb", group=1)
        self.lacks("is not viable: 0000:01:00.1 in it is bound to igb")
        self.bind("0000:01:00.1", "pci-stub", group=1)
        self.assertEqual(self.ask()[0], 0)

    def test_resets_of_the_bus(self):
        self.bind("0000:01:00.1", "igb", group=2)
        self.assertEqual(self.ask()[0], 0)
        self.bind(FUNCTION, "vfio-pci", group=1, reset_method="bus")
        self.lacks(f"can clean {FUNCTION}, and 0000:01:00.1 on it is bound to igb")
        reset = f"sys/bus/pci/devices/{FUNCTION}/vfio_reset"
        self.write(f"{reset}/obstacles", "0000:01:00.1 is bound to igb\n")
        self.write(f"{reset}/owed", "bus 0000:01\n")
        self.lacks("its reset is due (bus 0000:01): 0000:01:00.1 is bound to igb.")
