# SPDX-License-Identifier: GPL-2.0
"""The table of suites, and the tests in them by name."""

import re
import subprocess
from dataclasses import replace

from . import ARCH, CACHE, TESTING, Failure, defects, installs, lint, models, programs, unit, vm
from .guest_selftests import KERNELS
from .kernel import DEBIAN
from .kinds import SELFTESTS, AsGood, Bench, Guest, Host, Kunit, Machine, Plain, Same, SameTools
from .topology import tables


# The drivers that the benchmark compares with vfio_pci_rs, at the names by which it knows them.
SETS = """sh -c 'mkdir /tmp/sets; ln -s {stock} /tmp/sets/c
    ln -s {rs+global-mutex} /tmp/sets/global-mutex; exec "$0" "$@"'"""


# By a clock of instructions, a wait for a file of the host takes as long as the next timer.
QEMU_IN_MEMORY = """sh -c 'program=$(command -v qemu-system-x86_64)
    for file in $program $(ldd $program | grep -o "/[^ ]*") /usr/share/seabios/bios-256k.bin; do
        cp --parents $file /tmp && mount --bind /tmp$file $file || exit
    done; exec "$0" "$@"' """


BENCHES = (
    "data_path", "counted", "bus", "vectors", "buses", "vfs", "dirty", "scale", "probe", "qemu",
    "containers",
)  # fmt: skip


def bench(guest, cost=60, options="", **settings):
    """Returns the guest of the benchmark with the topology bench-GUEST."""
    charts = {
        "bus": "bus,thread,selftest",
        # Its rounds differ little.
        "counted": "bus,buses,scale,wake,qemu_bus --rounds 3 --prefix counted_",
    }.get(guest, guest)
    options = f"--sets /tmp/sets --selftests {{selftests}} --only {charts} {options}"
    before = QEMU_IN_MEMORY if guest == "counted" else ""
    command, name = f"{before}{SETS} {{programs}}/bench {options}", f"bench-{guest}"
    return Bench(name, cost, command=command, topology=name, kernel="perf", **settings)


def scenarios(name, cost, driver="vfio_pci_rs", options="", races=False, **settings):
    """Returns the guest that runs scenarios. Those that look for `races` repeat them.

    The long form has more rounds, and the models go through all interleavings.
    """
    command = f"{{programs}}/scenarios --driver {driver} {options}".rstrip()
    if races:
        settings |= {"long": f"{command} --rounds 100"}
        command += " --rounds 8"
    return Guest(name, cost, command=command, **settings)


# The set of modules for a driver under test.
MODULES = {"vfio_pci_rs": "rs", "vfio-pci-nvme": "rs", "in-place": "in-place"}


def selftests(
    name, cost, programs, driver="vfio_pci_rs", long=None, rounds=None, long_rounds=None, **settings
):  # fmt: skip
    """Returns the guest that runs selftests, on the kernel perf, which has iommufd.

    `long` are the programs of the long form, and `long_rounds` its rounds.
    """

    def command(programs, rounds):
        variable = f"env VFIO_PCI_RS_ROUNDS={rounds} " if rounds else ""
        return f"{variable}python3 {SELFTESTS} {driver} {{selftests}} {programs}"

    modset = MODULES.get(driver, "core")
    forms = command(programs, rounds), command(long or programs, long_rounds or rounds)
    settings = {"kernel": "perf", "modules": modset} | settings
    return Guest(name, cost, command=forms[0], long=forms[1], **settings)


# The sets of modules on which the tools run, by the names of machine/pci.py.
TOOLS_ON = {"c": "stock", "in-place": "in-place", "beside": "rs"}
# The last two have the machine boot again.
TOOLS = ("libvirt", "dpdk", "qemu", "selection", "driverctl", "reboot")
ROUNDS = "rounds"


def tools(modset, *names):
    """Returns the machine that tests tools on a set of modules."""
    name = "tools" if names == TOOLS else "+".join(names)
    command = f"python3 -m machine {modset} {' '.join(names)}"
    return Machine(f"{name}-{modset}", 300, command=command, modules=TOOLS_ON[modset])


# Those of the kernel's own selftests that enter code of the driver; the others test vfio-pci-core
# and the IOMMU.
ENTERING = (
    "vfio_pci_device_test vfio_pci_sriov_uapi_test "
    "vfio_pci_device_init_perf_test vfio_iommufd_setup_test"
)
ALL = " ".join(KERNELS)
# These need no function that only the reset of its bus cleans.
ON_NVME = (
    "vfio_pci_rs_test.opened_twice vfio_pci_rs_test.unbind_while_open vfio_pci_rs_test.unload "
    "vfio_pci_rs_test.attached_while_sibling_comes_and_goes hot_reset_test"
)
OURS = "vfio_pci_rs_test hot_reset_test sriov_test untouched_test"
# On the debug kernel, the less memory there is, the less the checkers scan. The suite `debug` looks
# for leaks, and so do the long forms.
DEBUG = {"kernel": "debug", "memory": "1G", "limit": 3600}
NO_LEAKS = {"arguments": (vm.NO_KMEMLEAK,)}
# In one guest, whose boot takes as long as either: scenarios, and allocations that fail.
DEBUGGED = """sh -c '"$0" --driver vfio_pci_rs {only}; status=$?
        "$1" --driver vfio_pci_rs {every} && exit $status'
    {{programs}}/scenarios {{programs}}/faults"""

# Scenarios of many cases, which take minutes on the debug kernel.
COUNTED = "known_clean,known_clean_tricks,oracle"

# Scenarios for the kernel `perf` alone. At a surprise removal, pciehp takes its reset_lock within
# pci_rescan_remove_lock and the other way round. Lockdep reports that, whatever the driver, and
# nothing after it. `root_resets` takes half a minute, and the kernel's own core fails it.
ON_PERF = "removal,root_resets"


def soak(cost, options, name="soak", **settings):
    settings = {"topology": "soak", "kernel": "perf"} | settings
    return Guest(name, cost, command=f"{{programs}}/soak {options}", **settings)


# Things are built in the order in which this table needs them.
SUITES = (
    scenarios(
        "scenarios", 100, options=f"--skip {ON_PERF}", races=True,
    ),
    # QEMU's monitor does not answer any more once the guest has slept.
    scenarios("surprise-removal", 40, options="--only removal", kernel="perf",
              topology="removal"),
    # vfio-pci hangs on the core of Debian's kernel: it resets slots that are empty.
    scenarios("surprise-removal-c", 40, "vfio-pci", "--only removal", kernel="perf",
              topology="removal", modules="core"),
    scenarios("in-place", 40, "in-place", "--only names,attributes,qemu_hot_reset",
              modules="in-place"),
    # On this core, VFs that are closed together lose their resets.
    scenarios("scenarios-c", 100, "vfio-pci", f"--skip closed_together,{ON_PERF}",
              races=True, modules="stock"),
    scenarios("scenarios-patched-core", 100, "vfio-pci", f"--skip {ON_PERF}", races=True,
              modules="core"),
    # The fixes for stable kernels alone, for vfio-pci.
    scenarios(
        "scenarios-fixed-core", 100, "vfio-pci", "--only closed_together,bridge_lock",
        modules="fixed", **DEBUG | NO_LEAKS,
    ),
    # The driver's tracepoints meanwhile are replayed against the model.
    Guest(
        "replay", 40, kernel="perf",
        command="{programs}/liveness replay {programs}/scenarios "
        "--only failed_bus_reset,tracepoints,root_resets",
    ),
    Same("vfio_pci_rs-does-as-vfio-pci", after=("scenarios", "scenarios-c")),
    Same("patched-core-does-as-stock", after=("scenarios-patched-core", "scenarios-c")),
    Guest(
        "debug", 600,
        command=DEBUGGED.format(
            only=f"--rounds 2 --skip {COUNTED},{ON_PERF}", every="--every 20"
        ),
        long=DEBUGGED.format(only=f"--skip {ON_PERF}", every=""), **DEBUG,
    ),
    # A sample, with a fixed seed: a run that passed and one that fails differ by the source alone.
    # `make soak` has other seeds.
    soak(60, "--seed 1 --ops 500 --round 250"),
    selftests(
        "debug-selftests", 300, "vfio_pci_rs_test", long=OURS, rounds=2, **DEBUG | NO_LEAKS,
    ),
    # A lock inversion and a leak, which the debug kernel has to report.
    selftests(
        "defects-reported", 200, "vfio_pci_rs_test.last_release",
        **DEBUG | {"modules": "rs+lock-inversion+leak"}, judge=defects.reported,
    ),
    Guest(
        "differential", 200, topology="differential", kernel="perf",
        command="{programs}/differential --brief --seeds 1 --calls 300",
        long="{programs}/differential",
    ),
    # Wrong answers, each of which the fixed scripts and random calls must find.
    Guest(
        "defect-differs", 60, topology="differential", kernel="perf",
        modules="rs+wrong-answer+foreign-owned+wrong-bind-error",
        command="{programs}/differential --brief --only igb,slot --mode cdev --seeds 2 --calls 300 "
        "--finds '*HOT_RESET, *: Error(EINVAL) Error(EPERM)*' --finds '*HOT_RESET_INFO, *' "
        "--finds '*BIND_IOMMUFD, *: Error(EPERM) Error(EBUSY)*'",
    ),
    # They take virtual functions only if the driver is called vfio-pci.
    selftests("kernel-selftests", 60, ENTERING, "in-place", long=ALL, topology="selftests"),
    selftests("kernel-selftests-c", 60, ENTERING, "vfio-pci", long=ALL, topology="selftests"),
    AsGood("kernel-selftests-as-good", after=("kernel-selftests", "kernel-selftests-c")),
    selftests("selftests", 350, OURS, rounds=8, long_rounds=100),
    selftests("selftests-c", 350, OURS, "vfio-pci", rounds=8, long_rounds=100),
    Guest(
        "noiommu", 40, topology="noiommu", kernel="perf", memory="1G",
        command="sh -c 'modprobe vfio enable_unsafe_noiommu_mode=1; exec \"$0\" \"$@\"' "
        "{programs}/differential --brief --only noiommu --mode group --seeds 0",
    ),
    bench("bus", options="--rounds 1"),
    Kunit(
        "builtin", 30, kernel="builtin",
        command=f"python3 {SELFTESTS} vfio_pci_rs {{selftests}} vfio_pci_rs_test.last_release "
        "vfio_pci_rs_test.foreign_function vfio_pci_rs_test.unbind_while_open",
    ),
    Host("unit", 30, module=unit),
    Host("lint", 60, module=lint),
    Host("models", 200, module=models, long={"long": True}),
)  # fmt: skip

# The packages, and programs that use the driver: too long for each check. `make check-all` runs
# them, and `make test` each by its name.
ON_DEMAND = (
    selftests("selftests-nvme", 60, ON_NVME, "vfio-pci-nvme", topology="nvme", rounds=8),
    Host("package", 150, module=installs, arguments={"test": "modules_package"}),
    Host("package-dkms", 900, module=installs, arguments={"test": "dkms_package"}),
    Host("package-secure-boot", 600, module=installs, arguments={"test": "secure_boot"}),
    *(tools(modset, *TOOLS) for modset in TOOLS_ON),
    *(tools(modset, ROUNDS) for modset in ("c", "in-place")),
    *(
        Guest(
            f"iommufd-{modset}", 30, topology="tools", kernel="perf", modules=TOOLS_ON[modset],
            command=f"env PYTHONPATH=tools/testing python3 -m machine {modset} iommufd",
        )
        for modset in TOOLS_ON
    ),
    *(
        soak(
            200, "--ops 10000", f"soak-finds-{defect}", modules=f"rs+{defect}", judge=defects.found,
        )
        for defect in ("lost-debt", "lost-wakeup", "early-clean")
    ),
    *(bench(guest, limit=3600) for guest in BENCHES if guest != "bus"),
    Plain("package-boots", 100, command="python3 -m machine in-place package"),
    SameTools("tools-do-as-on-vfio-pci", after=tuple(f"tools-{modset}" for modset in TOOLS_ON)),
)  # fmt: skip


def own_selftests():
    """Returns {program: names of its tests} of the driver's selftests."""
    pattern = re.compile(r"^TEST\w*\((?:\w+, )?(\w+)", re.MULTILINE)
    sources = sorted((TESTING / "selftests/vfio_pci_rs").glob("*_test.c"))
    return {path.stem: list(dict.fromkeys(pattern.findall(path.read_text()))) for path in sources}


def by_name(name, on, driver):
    """Returns the suite for a scenario, a test of a selftest, a selftest, a suite, or tools.

    A selftest is PROGRAM or PROGRAM.TEST; the driver's own tests also go by their names alone.
    Tools are TOOL+TOOL-SET, with the names in TOOLS and TOOLS_ON.
    """
    suites, own = {suite.name: suite for suite in SUITES + ON_DEMAND}, own_selftests()
    for modset in TOOLS_ON:
        chosen = name.removesuffix(f"-{modset}").split("+")
        if name not in suites and set(chosen) <= {*TOOLS, ROUNDS}:
            suites[name] = tools(modset, *chosen)
    if name in suites:
        suite = suites[name]
        where = getattr(suite, "kernel", "the host")
        if on not in (None, where) and type(suite) is not Guest:
            raise Failure(f"the suite {name} runs on {where} only: leave out the kernel {on}")
        return replace(suite, kernel=on) if on else suite
    chosen = next((f"{program}.{name}" for program, tests in own.items() if name in tests), name)
    program = chosen.partition(".")[0]
    # perf boots in seconds, if it has been built.
    is_perf = program in KERNELS or any(CACHE.glob("kernel-perf-????????????"))
    on = on or ("perf" if is_perf else "debian")
    if program in KERNELS and driver == "vfio_pci_rs":
        driver = "in-place"
    modset = MODULES.get(driver, "stock" if on in DEBIAN else "core")
    settings = {"driver": driver, "kernel": on, "modules": modset}
    if program in KERNELS:
        return selftests(name, 0, chosen, topology="selftests", **settings)
    if program in own:
        return selftests(name, 0, chosen, **settings)
    command, listed = [programs.programs() / "scenarios", "--list"], []
    if not ARCH:
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        listed = run.stdout.split()
    # Programs of another architecture cannot be asked.
    if name in listed or ARCH:
        # `removal` has a topology of its own.
        settings["topology"] = name if name in tables()[0] else "scenarios"
        return scenarios(name, 0, options=f"--only {name}", **settings)
    tests = "".join(f"\n  {program}: {' '.join(names)}" for program, names in own.items())
    raise Failure(
        f"there is no test '{name}'. There are\n  scenarios: {' '.join(listed)}{tests}\n"
        f"  the kernel's selftests: {' '.join(KERNELS)}\n  suites: {' '.join(suites)}"
    )
