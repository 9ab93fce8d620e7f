# SPDX-License-Identifier: GPL-2.0
"""Many starts and ends of a domain of libvirt."""

from pathlib import Path

from .libvirt import domain, virsh
from .pci import Function, Resets
from .report import run

ROUNDS = 50
# In kB, of the memory that the kernel cannot reclaim: what a round may keep, and caches.
LEFT, CACHES = 64, 1024


def figures(driver):
    """Returns what could leak: use counts of the driver, files of libvirt, memory of the kernel."""
    [pid] = run("pidof", "libvirtd").split()
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    memory = Path("/proc/meminfo").read_text().split()
    slab = int(memory[memory.index("SUnreclaim:") + 1])
    return int(Path(f"/sys/module/{driver.module}/refcnt").read_text()), files, slab


def libvirt_rounds(test, driver):
    """Starts and destroys a domain with the functions of a bus 50 times, and looks for leaks."""
    # They are one group, whose functions QEMU takes only if all are bound to the driver.
    functions = [Function(f"flr.{number}") for number in range(4)]
    usual, before = [function.driver() for function in functions], []
    with domain("rounds", functions, driver), Resets() as resets:
        for number in range(ROUNDS):
            virsh("start", "rounds")
            used = {function.driver() for function in functions}
            virsh("destroy", "rounds")
            left = [function.driver() for function in functions]
            good = used == {driver.name} and left == usual
            test.check(f"round {number}: bound and given back", good, (used, left))
            # The first rounds fill caches.
            before = figures(driver) if number == 4 else before
        after = figures(driver)
    test.check("all were reset", resets.flr >= ROUNDS * len(functions), resets.counts)
    test.eq("nothing uses the driver", 0, after[0])
    test.check("libvirt has no more files open", after[1] <= before[1], f"{before} {after}")
    grown = after[2] - before[2]
    test.check("the kernel's memory does not grow", grown < LEFT * ROUNDS + CACHES, f"{grown} kB")
    test.seen("growth of unreclaimable slab", f"{grown} kB")


TESTS = (libvirt_rounds,)
