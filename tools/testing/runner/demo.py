# SPDX-License-Identifier: GPL-2.0
"""`make demo`: the reasons to use the driver, beside vfio-pci.

Each driver has a virtual machine, both at the same time. The times are all from one of them, in
which the drivers take turns.
"""

import json
import os
import secrets
import subprocess
import threading
import time
from pathlib import Path
from statistics import StatisticsError

from . import TESTING, Failure, events, shown, table
from .check import results_of
from .kinds import Guest
from .report import C, OURS, Benchmark
from .results import count
from .terminal import Terminal

PROGRAM = "{programs}/demo --driver"
BOTH = """sh -c 'mkdir /tmp/sets; ln -s {stock} /tmp/sets/c; exec "$0" "$@"'"""
# What is timed, and the least ratio: half of the benchmark's target, for a machine with other work.
TIMES = (
    ("start QEMU with 8 functions of one bus", "first_start", 2),
    ("stop it", "first_stop", 4),
    ("stop it and start it again at once", "restart", 2.5),
)
# In ms. Those of QEMU alone, which are subtracted, differ by as much.
LEAST_TIME = 10
LEFT = "its last user's value"


def write_disk(directory, line):
    """Writes a disk that boots, and prints `line` from its second sector."""
    program, sector = directory / "disk.o", directory / "disk.img"
    subprocess.run(["as", "--32", "-o", program, TESTING / "demo-disk.S"], check=True)
    link = ["ld", "-m", "elf_i386", "--oformat=binary", "-Ttext=0x7c00"]
    subprocess.run([*link, "-o", sector, program], check=True)
    if (size := sector.stat().st_size) != 512:
        raise Failure(f"demo-disk.S must fill a sector, and has {size} bytes")
    with open(sector, "ab") as file:
        file.write(f"Read from the disk: {line}\r\n".encode().ljust(1 << 20, b"\0"))


def waits(times, driver):
    """Returns the number of resets in each round for which a stop and start of QEMU waits."""
    samples = times.cases[f"qemu_bus_groups_{TIMES[-1][1]}"][driver]
    counts = {sum(sample[at] for at in ("at_open", "by_qemu", "at_close")) for sample in samples}
    return " or ".join(map(str, sorted(counts)))


def rows(c, ours, times):
    """Returns (what, C's, ours, gain, whether that is as expected) for each result.

    c, ours: the observations, with the line on the disk at `written`. times: a Benchmark or None.
    """
    both = c, ours

    def row(what, key, holds):
        cells = [driver.get(key, "nothing") for driver in both]
        return what, *cells, "", all(key in driver for driver in both) and holds(*cells)

    def timed(what, case, least):
        try:
            cells = [times.median(f"qemu_bus_groups_{case}", driver) for driver in (C, OURS)]
        except (AttributeError, StatisticsError):
            return what, "not measured", "not measured", "", False
        is_short = cells[1] < LEAST_TIME
        ratio = cells[0] / max(cells[1], LEAST_TIME)
        took = f"< {LEAST_TIME} ms" if is_short else f"{cells[1]:.0f} ms"
        gain = f"{'> ' * is_short}{ratio:.1f} x"
        return what, f"{cells[0]:.0f} ms", took, gain, ratio >= least

    return [
        row("read from the NVMe disk by a QEMU's firmware", "line",
            lambda *got: got == (c["written"], ours["written"])),
        row("its address, by DHCP over the NIC", "address", lambda *got: "none" not in got),
        *(timed(*each) for each in TIMES),
        row("resets that QEMU waits for meanwhile", "waits", lambda *waits: waits == ("24", "0")),
        row("resets lost of 49, as 7 VFs are closed together", "lost",
            lambda *lost: int(lost[0]) > 0 == int(lost[1])),
        row("found in a register by the next user", "found",
            lambda *found: found == (LEFT, "0")),
        row("lines of the kernel log that say why", "log",
            lambda *lines: int(lines[0]) == 0 < int(lines[1])),
        row("failures, and bugs in the kernel log", "failures",
            lambda *failures: failures == ("none", "none")),
    ]  # fmt: skip


def demo(kernel):
    start, seen, failures = time.monotonic(), {}, []
    terminal = Terminal("make demo")
    guests = {
        driver: Guest(driver, topology="demo", command=command, modules=modset, kernel=kernel,
                      limit=1200)  # fmt: skip
        for driver, command, modset in (
            (OURS, f"{BOTH} {PROGRAM} {OURS} --sets /tmp/sets", "rs"),
            (C, f"{PROGRAM} {C}", "stock"),
        )
    }
    with results_of("demo") as results:
        made = {driver: guest.build() for driver, guest in guests.items()}

        def run(driver, output=None):
            directory, line = results / driver, secrets.token_hex(8)
            directory.mkdir()
            write_disk(directory, line)
            _, wrong = count(guests[driver].run(directory, made[driver], output))
            observed = events.observations(directory / "demo.events.jsonl", only_compared=False)
            seen[driver] = {key: value for test in observed.values() for key, value in test.items()}
            seen[driver] |= {"written": line, "failures": "yes" if wrong else "none"}
            failures.extend(f"{driver}: {line}" for line in wrong)

        terminal.print("Two virtual machines boot Debian's kernel (emulated, half a minute).")
        terminal.print(f"{C} in one of them, and {OURS} in this one:")
        other = threading.Thread(target=run, args=[C], daemon=True)
        other.start()
        run(OURS, terminal.notes)
        other.join()
        measured = results / OURS / "bench.json"
        times = Benchmark([json.loads(measured.read_text())]) if measured.exists() else None
        for driver in seen if times else ():
            seen[driver]["waits"] = waits(times, driver)
        lines = rows(seen[C], seen[OURS], times)
    head = "", C, OURS, "gain", ""
    text = table.text(head, [(*row, "ok" if ok else "UNEXPECTED") for *row, ok in lines])
    terminal.print("\n".join(["", *failures, text.rstrip("\n")]))
    if "OUT" in os.environ:
        (Path(os.environ["OUT"]) / "demo.svg").write_text(terminal.picture())
    unexpected = sum(not ok for *_, ok in lines)
    took = f"{time.monotonic() - start:.0f} s; the logs are in {shown(results)}"
    print(f"{f'{unexpected} lines are UNEXPECTED' if unexpected else 'As expected'} ({took}).")
    return 1 if unexpected else 0
