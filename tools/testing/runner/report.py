# SPDX-License-Identifier: GPL-2.0
"""Makes the benchmark's report: one file of Markdown, and two pictures.

The results of a guest are described in tools/testing/scenarios/src/bench/mod.rs. A figure is the
median of all rounds, with the least and the most in brackets.
"""

import operator
import re
from html import escape
from statistics import StatisticsError, median

from . import table

# Ours by default, and with every reset of vfio-pci within the same call.
OURS, AS_C, C, GLOBAL = "vfio_pci_rs", "vfio_pci_rs as C", "vfio-pci", "global mutex"
# Okabe and Ito's colours, for readers who are colour-blind.
COLOURS = {C: "#0072b2", OURS: "#d55e00", AS_C: "#cc79a7", GLOBAL: "#009e73"}
NOTHING = "-"
COMPARISONS = {"≥": operator.ge, "≤": operator.le, "=": operator.eq}


class Benchmark:
    def __init__(self, parts):
        self.about, self.cases = parts[0]["meta"], {}
        for part in parts:
            self.cases |= part["cases"]
        self.drivers = [name for name in COLOURS if name in self.about["drivers"]]

    def values(self, case, driver, key):
        """Returns a figure of each round; none that was not measured."""
        samples = self.cases.get(case, {}).get(driver, [])
        return [sample[key] for sample in samples if key in sample]

    def median(self, case, driver=OURS, key="wall_ns"):
        """Returns the median of a time in milliseconds."""
        return median(self.values(case, driver, key)) / 1e6


def ratio(case, driver, other, key="wall_ns", to=None):
    """Returns the name of the ratio of two drivers' times, the other one's in `to`, and the ratio.

    That is a function of a Benchmark, as for the other kinds of figures below.
    """
    to, times = to or case, "" if key == "wall_ns" else f", {key}"
    name = f"{case} of {driver} / {to} of {other}{times}"
    return name, lambda b: b.median(case, driver, key) / b.median(to, other, key)


def least_ratio(name, pattern):
    """Returns C's wall time / ours in that of the cases that match where it is the least."""

    def measure(benchmark):
        both = (case for case, drivers in benchmark.cases.items()
                if re.fullmatch(pattern, case) and {C, OURS} <= drivers.keys())  # fmt: skip
        # Without the time of QEMU itself, nothing may be left.
        return min(benchmark.median(case, C) / max(benchmark.median(case), 1e-6) for case in both)

    return f"{name}: {C} / {OURS}, the least", measure


def extreme(which, case, key):
    """Returns the least or the most of a figure of ours in all rounds."""
    return f"{key} of {case}, {which.__name__}", lambda b: which(b.values(case, OURS, key))


def longest_call(benchmark):
    """Returns the most instructions of a call, in parts of C's."""
    calls = [name for name in benchmark.cases if name.startswith("data_path_")]
    key = "instructions"
    medians = ([median(benchmark.values(name, d, key)) for d in (OURS, C)] for name in calls)
    return max(ours / c for ours, c in medians)


def growths(benchmark, driver, key):
    """Returns {phase: a figure of a container among a hundred, in parts of that among ten}."""

    def figure(number, phase):
        return median(benchmark.values(f"containers_{number}_{phase}", driver, key)) / number

    phases = (case.removeprefix("containers_100_") for case in benchmark.cases
              if case.startswith("containers_100_"))  # fmt: skip
    return {phase: figure(100, phase) / figure(10, phase) for phase in phases}


# What is measured, how, and the limit. Figures that are missing raise an error: "not measured".
TARGETS = (
    (*ratio("bus_8_open", C, AS_C), "≥", 5),
    (*ratio("bus_8_open", AS_C, AS_C, to="bus_1_open"), "≤", 1.5),
    (*ratio("bus_8_close", AS_C, AS_C, to="bus_1_close"), "≤", 2),
    (*ratio("bus_8_close", C, AS_C), "≥", 1),
    (*ratio("counted_bus_8_close", AS_C, C, "machine_ns"), "≤", 1.1),
    (*extreme(min, "bus_8_close", "function_resets"), "=", 8),
    (*ratio("selftest_8", C, AS_C), "≥", 5),
    (*ratio("selftest_8", OURS, C), "≤", 0.3),
    (*ratio("selftest_1", OURS, C), "≤", 0.3),
    (*ratio("thread_8_open", OURS, C), "≤", 0.3),
    (*ratio("vectors_8_open", C, OURS), "≥", 5),
    (*ratio("scale_64_open", C, OURS), "≥", 3),
    (*ratio("counted_scale_64_open", C, OURS), "≥", 3),
    (*ratio("buses_16_open", AS_C, C), "≤", 1.05),
    (*ratio("buses_16_open", GLOBAL, AS_C), "≥", 8),
    (*ratio("counted_buses_16_open", GLOBAL, AS_C), "≥", 8),
    (*ratio("vfs_7_open", AS_C, C), "≤", 1.05),
    (*extreme(max, "vfs_7_close", "lost"), "=", 0),
    (*ratio("scale_64_close", C, AS_C), "≥", 1),
    (*ratio("counted_scale_64_close", AS_C, C, "machine_ns"), "≤", 1.1),
    (*extreme(max, "dirty_8_close", "bus_resets"), "=", 1),
    (*extreme(min, "dirty_8_close", "bus_resets"), "=", 1),
    (*ratio("counted_wake_8", AS_C, AS_C, "wake_ns", to="counted_wake_1"), "≤", 2),
    (*ratio("counted_wake_64", AS_C, AS_C, "wake_ns", to="counted_wake_1"), "≤", 2),
    (*ratio("probe_200", AS_C, C), "≤", 1.05),
    (*least_ratio("qemu started", "qemu_(bus|vfs)_.*_start"), "≥", 4),
    (*least_ratio("counted qemu started", "counted_qemu_bus_.*_start"), "≥", 4),
    (*least_ratio("qemu stopped", "(counted_)?qemu_(bus|vfs)_.*_stop"), "≥", 8),
    (*least_ratio("qemu stopped and started", "(counted_)?qemu_.*_restart"), "≥", 5),
    (*least_ratio("any open, close or start", r"(?!data_path|probe|(counted_)?qemu_alone|containers_\d+_(bind|map|unbind)$).*"), "≥", 1),
    (*least_ratio("100 containers, each phase", "containers_100_.*"), "≥", 1),
    (*ratio("containers_100_clean_open", C, OURS), "≥", 3),
    (
        f"processor_ns of one of 100 containers / of 10, {OURS}, the most",
        lambda b: max(growths(b, OURS, "processor_ns").values()), "≤", 1.2,
    ),
    (f"instructions of a call of the data path: {OURS} / {C}, the most", longest_call, "≤", 1.005),
)


def targets(benchmark):
    rows = []
    for what, measure, sign, limit in TARGETS:
        try:
            figure = measure(benchmark)
            met = "yes" if COMPARISONS[sign](figure, limit) else "no"
            rows.append((what, f"{figure:.3g}", f"{sign} {limit}", met))
        except (ValueError, StatisticsError):
            rows.append((what, "not measured", f"{sign} {limit}", NOTHING))
    return table.text(("target", "measured", "limit", "met"), rows)


def number(value):
    """Returns a number with three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values, scale):
    """Returns "median (least-most)"."""
    if not values:
        return NOTHING
    figures = (number(value / scale) for value in (median(values), min(values), max(values)))
    return "{} ({}-{})".format(*figures)


def times(benchmark, key, scale, pattern):
    """Returns the table of the cases that match `pattern`: a column a driver."""
    drivers, rows = benchmark.drivers, []
    for case in (case for case in benchmark.cases if re.match(pattern, case)):
        figures = {driver: benchmark.values(case, driver, key) for driver in drivers}
        measured = figures.get(C) and figures.get(OURS) and median(figures[OURS])
        ratio = f"{median(figures[C]) / median(figures[OURS]):.2f}" if measured else NOTHING
        cells = [spread(figures[driver], scale) for driver in drivers]
        rows.append((case, *cells, ratio))
    return table.text(("", *drivers, f"{C} / {OURS}"), rows)


def growth(benchmark, key):
    """Returns the table of growths(): a column a driver."""
    c, ours = (growths(benchmark, driver, key) for driver in (C, OURS))
    rows = [(phase, f"{c[phase]:.2f}", f"{ours[phase]:.2f}") for phase in c]
    return table.text(("", C, OURS), rows)


def losses(benchmark):
    """Returns the table of resets that were lost, of those that were due, in all rounds."""
    rows = []
    for case in benchmark.cases:
        due, lost = (
            [sum(benchmark.values(case, driver, key)) for driver in benchmark.drivers]
            for key in ("due", "lost")
        )
        if any(lost):
            cells = (f"{a} of {b}" if b else NOTHING for a, b in zip(lost, due, strict=True))
            rows.append((case, *cells))
    return table.text(("", *benchmark.drivers), rows)


def markdown(benchmark):
    about = benchmark.about
    return f"""<!-- SPDX-License-Identifier: GPL-2.0 -->
# Benchmark

`make bench` on kernel {about['kernel']} with {about['processors']} processors, emulated.
{about['rounds']} rounds; figures are medians, with the least and the most in brackets. Wall time
is from the start of the first function to the end of the last one. Lost are resets that were due
and not made.

The name of a case has its part, the number of functions and the operation. Parts: `bus`, functions
of one bus, `thread`, one after the other, `vectors`, with MSI-X; `buses`, functions of a bus each;
`scale`, 8 of each bus; `vfs`, VFs of one PF; `dirty`, functions without their own reset; `wake`,
the reset of a bus with so many functions in D3hot; `probe`, functions bound one after the other;
`selftest`, the kernel's test; `qemu`, QEMU started and stopped first after bind, and again at once;
`containers`, processes with a VF each. Cases that start with `counted`, and the containers, ran on
one processor whose clock counts instructions.

![Functions of one bus, opened together](benchmark-open.svg)

![Resets lost](benchmark-lost.svg)

## Targets

Nothing fails because of them.

{targets(benchmark)}
## Wall time, ms

{times(benchmark, "wall_ns", 1e6, "(?!data_path_)")}
## Lost resets

{losses(benchmark)}
## Processor time until the functions are asleep, ms

{times(benchmark, "machine_ns", 1e6, "counted_(bus|scale)_")}
## Waking of functions before a bus reset, ms

{times(benchmark, "wake_ns", 1e6, "counted_wake_")}

## Containers

Processor time of the machine, ms:

{times(benchmark, "busy_ns", 1e6, "containers_")}
Memory of the kernel for each, KiB:

{times(benchmark, "memory", 1024, "containers_.*_(bind|map)")}
Processor time of one among 100, in parts of that among 10:

{growth(benchmark, "processor_ns")}
## Function resets with QEMU

{times(benchmark, "function_resets", 1, "qemu_(bus|vfs)")}
## Instructions of a call on an open function

{times(benchmark, "instructions", 1, "data_path_")}"""


def bars(title, rows):
    """Returns an SVG picture of horizontal bars. rows: (label, driver, value)."""
    longest = max((value for *_, value in rows), default=0) or 1
    height = 30 + 16 * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="620" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        "<!-- SPDX-License-Identifier: GPL-2.0 -->",
        f'<rect width="620" height="{height}" fill="white"/>',
        f'<text x="10" y="18">{escape(title)}</text>',
    ]
    for index, (label, driver, value) in enumerate(rows):
        y, width, colour = 42 + 16 * index, 340 * value / longest, COLOURS[driver]
        parts += [
            f'<text x="190" y="{y}" text-anchor="end">{escape(label)}, {driver}</text>',
            f'<rect x="200" y="{y - 10}" width="{width:.0f}" height="12" fill="{colour}"/>',
            f'<text x="{206 + width:.1f}" y="{y}">{number(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])


def pictures(benchmark):
    """Returns {file name: SVG} of the two pictures."""
    opened, losses = [], []
    measured = [(case, driver) for case, drivers in benchmark.cases.items() for driver in drivers]
    for case, driver in measured:
        if match := re.fullmatch(r"bus_(\d+)_open", case):
            opened.append((f"{match[1]} functions", driver, benchmark.median(case, driver)))
        if match := re.fullmatch(r"vfs_(\d+)_close", case):
            lost = sum(benchmark.values(case, driver, "lost"))
            losses.append((f"{match[1]} VFs", driver, lost))
    return {
        "benchmark-open.svg": bars("Functions of one bus, opened together: wall time, ms", opened),
        "benchmark-lost.svg": bars("VFs closed together: resets lost in all rounds", losses),
    }


def write(parts, out):
    """Writes the report of `parts`, a guest's results each, to `out`; returns the targets."""
    benchmark = Benchmark(parts)
    (out / "benchmark.md").write_text(markdown(benchmark))
    for name, picture in pictures(benchmark).items():
        (out / name).write_text(picture)
    return targets(benchmark)
