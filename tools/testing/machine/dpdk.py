# SPDX-License-Identifier: GPL-2.0
"""DPDK: dpdk-devbind.py, and testpmd that forwards packets between assigned functions."""

import re
import subprocess
import time
from pathlib import Path

from . import selection
from .pci import Function, Resets
from .report import run, wait_for

PACKETS, SECONDS = 100_000, 15
TOKEN, WRONG = "14d63f20-8445-11ea-8900-1f9ce7d5650d", "24d63f20-8445-11ea-8900-1f9ce7d5650d"


def bind(name, *functions):
    """Binds functions to a driver with dpdk-devbind.py, which unbinds them first."""
    return run("dpdk-devbind.py", f"--bind={name}", *functions, ok=None)


class Testpmd:
    """testpmd with some functions, until the end of the block."""

    def __init__(self, functions, *options):
        allowed = (word for function in functions for word in ("--allow", function))
        prefix = f"--file-prefix={str(functions[0]).translate({58: 45})}"
        self.command = ["dpdk-testpmd", "--lcores=0,1", prefix, *allowed, *options]
        self.command += ["--", "--interactive", "--forward-mode=io", "--total-num-mbufs=4096"]
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


def forward(test, functions):
    """Sends packets around between two functions."""
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
        test.eq("dpdk-devbind.py does not bind to another name", ["igb", "igb"], bound)
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


TESTS = (dpdk_forward, dpdk_vfs)
# Side by side, DPDK takes no function.
NEED_THE_NAME = (dpdk_vfs,)
