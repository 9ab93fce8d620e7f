# SPDX-License-Identifier: GPL-2.0
"""DPDK: dpdk-devbind.py, and testpmd that forwards packets between assigned functions."""

import mmap
import re
import subprocess
import time
from pathlib import Path

from . import selection
from .pci import Function, Resets
from .report import run, wait_for

PACKETS, SECONDS = 100_000, 15
# Of PCI_COMMAND, and registers of the first ring of a 82576.
MEMORY, MASTER, RDH, RDT = 2, 4, 0xC010, 0xC018
TOKEN, WRONG = "14d63f20-8445-11ea-8900-1f9ce7d5650d", "24d63f20-8445-11ea-8900-1f9ce7d5650d"


def bind(name, *functions):
    """Binds functions to a driver with dpdk-devbind.py, which unbinds them first."""
    return run("dpdk-devbind.py", f"--bind={name}", *functions, ok=None)


class Testpmd:
    """testpmd with some functions, until the end of the block."""

    def __init__(self, functions, *options, mode="io"):
        allowed = (word for function in functions for word in ("--allow", function))
        prefix = f"--file-prefix={str(functions[0]).translate({58: 45})}"
        # Its output is read while it runs.
        line = ["stdbuf", "--output=L", "dpdk-testpmd", "--lcores=0,1"]
        self.command = [*line, prefix, *allowed, *options]
        self.command += ["--", "--interactive", f"--forward-mode={mode}"]
        self.command += ["--total-num-mbufs=4096"]
        self.log = Path(f"/run/testpmd-{functions[0]}.log")

    def __enter__(self):
        print(f"    $ {' '.join(map(str, self.command))}", flush=True)
        self.output = open(self.log, "w")
        self.process = subprocess.Popen(
            list(map(str, self.command)), text=True,
            stdin=subprocess.PIPE, stdout=self.output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.say("quit")
        self.process.wait(180)
        self.output.close()
        print(self.text(), flush=True)

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def text(self):
        return self.log.read_text()

    def ready(self):
        """Waits for the prompt, and returns whether it came before the end of the program."""
        wait_for("testpmd", lambda: "testpmd>" in self.text() or self.process.poll() is not None)
        return self.process.poll() is None

    def count(self, kind):
        """Returns how many packets the first port has received or sent ("RX" or "TX") by now."""
        shown = self.text().count("Throughput")
        self.say("show port stats 0")
        wait_for("statistics", lambda: self.text().count("Throughput") > shown)
        return int(re.findall(rf"{kind}-packets: (\d+) .*{kind}-", self.text())[-1])


def forward(test, functions):
    with Testpmd(functions) as testpmd:
        if not test.check("testpmd takes the functions", testpmd.ready(), testpmd.text()[-2000:]):
            return
        for function in functions:
            test.eq(f"{function} is awake", "D0", function.power())
        testpmd.say("start tx_first")
        time.sleep(SECONDS)
        testpmd.say("stop")
    # Of each port, and of both: how many it received from its peer and sent on.
    received = [int(count) for count in re.findall(r"RX-packets: (\d+) .*RX-total", testpmd.text())]
    test.eq("testpmd has statistics of each port, and of all", 3, len(received))
    least = min(received, default=0)
    test.check(f"each port received {PACKETS // 2} packets", least >= PACKETS // 2, received)
    test.seen(f"packets in {SECONDS} s", sum(received[-1:]))


def dpdk_forward(test, driver):
    """dpdk-devbind.py --bind, and testpmd between two PFs of igb that a cable connects."""
    functions = [Function("pair.0"), Function("pair.1")]
    run("dpdk-hugepages.py", "--setup", "256M")
    run("modprobe", driver.name)
    bind(driver.name, *functions)
    bound = [function.driver() for function in functions]
    if not driver.is_default:
        # It fails to give the first one back to igb, too.
        test.check("dpdk-devbind.py binds to no other name", driver.name not in bound, bound)
        for function in functions:
            selection.bind(function, driver.name)
        with Testpmd(functions) as testpmd:
            testpmd.ready()
        test.check("testpmd takes none", "No probed ethernet devices" in testpmd.text())
        for function in functions:
            selection.unbind(function)
        test.seen("answer", "DPDK knows vfio-pci only")
        return
    test.eq("they are bound to the driver", [driver.name] * 2, bound)
    with Resets() as resets:
        forward(test, functions)
    test.check("each function was reset", resets.flr >= 2, resets.counts)
    if driver.is_ours:
        for function in functions:
            wait_for("a clean function", lambda: function.state() in ("clean", "unknown"))
            test.seen(f"state of {function} after it", function.state())
    test.check("devbind shows them", "drv=vfio-pci" in run("dpdk-devbind.py", "--status-dev=net"))
    bind("igb", *functions)
    test.eq("igb has them back", ["igb", "igb"], [function.driver() for function in functions])


def faults():
    """Returns the lines of the kernel's log about DMA that the IOMMU refused."""
    return [line for line in run("dmesg").splitlines() if "DMAR:" in line and "fault" in line]


def kill(test, receiver, source):
    """Kills a testpmd that receives packets. Its files are closed at the return."""
    with Testpmd([receiver], mode="rxonly") as sink:
        if test.check("testpmd takes the function", sink.ready(), sink.text()[-2000:]):
            sink.say("start")
            wait_for("packets", lambda: sink.count("RX") >= PACKETS)
            test.check("the function is bus master", receiver.is_master())
        sink.process.kill()
        sink.process.wait()
    test.check("it is not after the end of its user", not receiver.is_master())
    sent = source.count("TX")
    wait_for("packets", lambda: source.count("TX") >= sent + PACKETS)


def revive(function):
    """Lets a 82576 that was not reset write packets to its ring again."""
    function.command(MEMORY | MASTER)
    with open(function.path / "resource0", "r+b") as file, mmap.mmap(file.fileno(), 1 << 16) as bar:
        head, tail = (memoryview(bar)[at : at + 4].cast("I") for at in (RDH, RDT))
        tail[0] = (head[0] or 256) - 1
        head.release(), tail.release()


def dpdk_killed(test, driver):
    """Kills a testpmd that receives packets, twice: its function makes no DMA after its end."""
    sender, receiver = functions = [Function("pair.0"), Function("pair.1")]
    bind(driver.name, *functions)
    with Testpmd([sender], "--main-lcore=1", mode="txonly") as source:
        if not test.check("the sender starts", source.ready(), source.text()[-2000:]):
            return
        source.say("start")
        before = faults()
        kill(test, receiver, source)
        test.eq("the IOMMU refused no DMA", before, faults())
        # The IOMMU notices a function that goes on: without its reset, and as bus master again.
        receiver.write("power/control", "on")
        receiver.write("reset_method", "\n")
        kill(test, receiver, source)
        test.eq("the IOMMU refused no DMA without a reset", before, faults())
        revive(receiver)
        wait_for("refused DMA", lambda: faults() != before)
        receiver.command(MEMORY)
        receiver.write("reset_method", "default")
        receiver.write("power/control", "auto")
    bind("igb", *functions)
    test.eq("igb has them back", ["igb", "igb"], [function.driver() for function in functions])


def dpdk_vfs(test, driver):
    """A PF that one testpmd has with a VF token, and its VF in another one, without and with it."""
    run("modprobe", driver.name)
    pf = Function("igb.pf")
    Path(f"/sys/module/{driver.module}/parameters/enable_sriov").write_text("1")
    bind(driver.name, pf)
    with Testpmd([pf], f"--vfio-vf-token={TOKEN}") as owner:
        if not test.check("testpmd takes the PF", owner.ready(), owner.text()[-2000:]):
            return
        [vf] = pf.vfs(1)
        test.eq("the VF is bound to the driver", driver.name, vf.driver())
        for token in WRONG, TOKEN:
            with Testpmd([vf], f"--vfio-vf-token={token}") as user:
                user.ready()
            opens = "Configuring Port 0" in user.text()
            test.eq(f"with the token {token}, the VF opens", token == TOKEN, opens)
    pf.write("sriov_numvfs", 0)
    bind("igb", pf)
    test.eq("igb has the PF back", "igb", pf.driver())


TESTS = (dpdk_forward, dpdk_killed, dpdk_vfs)
# Side by side, DPDK takes no function.
NEED_THE_NAME = (dpdk_killed, dpdk_vfs)
