#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs selftests on a driver, in a guest: guest_selftests.py DRIVER DIR PROGRAM[.TEST]...

DRIVER is vfio_pci_rs, vfio-pci-nvme of the same module, vfio-pci, or in-place, which is ours as
vfio-pci, DIR the directory of programs.selftests(). The kernel's programs lie in DIR and get the
addresses of devices, which are bound to the driver for them. The driver's own lie in DIR/own and
find the topology's functions in the environment. A PROGRAM's output becomes $RESULTS/PROGRAM.tap,
its exit status $RESULTS/PROGRAM.status. Exit status: 0 if each program ended with 0, or 4 for
"skipped".
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

DEVICES, DRIVERS = Path("/sys/bus/pci/devices"), Path("/sys/bus/pci/drivers")
SKIPPED = 4
# Less than any guest has: a guest that is stopped leaves no results of the programs that follow. A
# test that hangs is ended by the program itself.
LIMIT = 1500

# The devices, of the topology `selftests`, for each of the kernel's programs.
KERNELS = {
    "vfio_dma_mapping_mmio_test": ["plain"],
    "vfio_dma_mapping_test": ["plain"],
    "vfio_iommufd_setup_test": ["plain"],
    # Opens all devices side by side.
    "vfio_pci_device_init_perf_test": ["dma", "plain", "pf"],
    "vfio_pci_device_test": ["plain"],
    "vfio_pci_driver_test": ["dma"],
    "vfio_pci_sriov_uapi_test": ["pf"],
}
# The variables of the driver's own programs: functions FAMILY.a, FAMILY.0 and so on.
FAMILIES = {
    "VFIO_PCI_RS_BUS": "qemu",
    "VFIO_PCI_RS_FLR": "flr",
    "VFIO_PCI_RS_PAIR": "pair",
    "VFIO_PCI_RS_PF": "igb",
}


def environment(driver, topology):
    """Returns the variables of the driver's own programs."""
    variables = {"VFIO_PCI_RS_DRIVER": driver}
    for variable, family in FAMILIES.items():
        names = (name for name in topology if re.fullmatch(rf"{family}\.([0-9a-z]|pf)", name))
        variables[variable] = " ".join(topology[name] for name in names)
    return variables


def run(path, tests, bdfs, results, **variables):
    """Runs `tests` of a program, or all. Its output goes to its file, too. Returns its status."""
    print(f"# {path.name}", flush=True)
    options = [option for test in tests for option in (("-r" if "." in test else "-t"), test)]
    arguments = ["timeout", "--kill-after=10", str(LIMIT), path, *options, *bdfs]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(
        arguments, text=True, errors="replace", env=os.environ | variables, **pipes
    )
    with open(results / f"{path.name}.tap", "w") as tap:
        for line in process.stdout:
            print(line, end="", file=tap, flush=True)
            print(line, end="", flush=True)
    status = process.wait()
    (results / f"{path.name}.status").write_text(f"{status}\n")
    return status


def run_kernels(path, tests, driver, topology, results):
    """Runs one of the kernel's programs, with devices that are bound to the driver meanwhile."""
    bdfs = [topology[device] for device in KERNELS[path.name]]
    for bdf in bdfs:
        (DEVICES / bdf / "driver_override").write_text(driver)
        (DRIVERS / driver / "bind").write_text(bdf)
    status = run(path, tests, bdfs, results)
    for bdf in bdfs:
        (DRIVERS / driver / "unbind").write_text(bdf)
        (DEVICES / bdf / "driver_override").write_text("\n")
    return status


def main(driver, directory, *chosen):
    results, directory = Path(os.environ["RESULTS"]), Path(directory)
    topology = json.loads((results / "topology.json").read_text())
    is_ours, driver = driver != "vfio-pci", driver.replace("in-place", "vfio-pci")
    module = {"vfio-pci-nvme": "vfio_pci_rs"}.get(driver, driver).replace("-", "_")
    # The kernel's programs make VFs. The driver's own expect a reset when vfio-pci makes one.
    own = not {name.partition(".")[0] for name in chosen} <= set(KERNELS)
    for command in ["vfio_iommu_type1"], [module, f"enable_sriov={int(not own)}"]:
        subprocess.run(["modprobe", *command], check=True)
    if Path(f"/sys/module/{module}/parameters/strict").exists() != is_ours:
        sys.exit(f"the module {module} is the other one")
    for parameter in Path(f"/sys/module/{module}/parameters").glob("*_reset"):
        parameter.write_text("N" if own else "Y")
    # Where the module lies: a leak that is found when it is gone has addresses only.
    loaded = Path("/proc/modules").read_text().splitlines()
    print(*(f"# loaded {line}" for line in loaded if line.startswith(f"{module} ")), sep="\n")
    programs = {}
    for name in chosen:
        program, _, test = name.partition(".")
        programs.setdefault(program, []).extend([test] if test else [])
    failed = False
    for program, tests in programs.items():
        if program in KERNELS:
            status = run_kernels(directory / program, tests, driver, topology, results)
        else:
            own = directory / "own" / program
            status = run(own, tests, [], results, **environment(driver, topology))
        failed |= status not in (0, SKIPPED)
    # Nothing may hold the driver any more.
    if Path(f"/sys/module/{module}/initstate").exists():
        subprocess.run(["rmmod", module], check=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
