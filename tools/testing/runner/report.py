# SPDX-License-Identifier: GPL-2.0
"""Makes the benchmark's report: one file of Markdown, and two pictures.

The results of a guest are described in tools/testing/scenarios/src/bench/mod.rs. A figure is the
median of all rounds, with the least and the most in brackets.
"""

import operator
import re
import statistics
from html import escape

from . import table

OURS, C, GLOBAL = "vfio_pci_rs", "vfio-pci", "global mutex"
# Okabe and Ito's colours, for readers who are colour-blind.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
NOTHING = "-"
COMPARISONS = {"≥": operator.ge, "≤": operator.le, "=": operator.eq}


class Benchmark:
    """The results of all guests together."""

    def __init__(self, parts):
        self.about = parts[0]["meta"]
        self.drivers = [name for name in (C, OURS, GLOBAL) if name in self.about["drivers"]]
        self.cases = {name: samples for part in parts for name, samples in part["cases"].items()}
        self.titles = {
            name: text for part in parts for name, text in part["meta"]["titles"].items()
        }

    def values(self, case, driver, key):
        """Returns a figure of each round; none that was not measured."""
        samples = self.cases.get(case, {}).get(driver, [])
        return [sample[key] for sample in samples if key in sample]

    def wall(self, case, driver):
        """Returns the median of the wall time in milliseconds."""
        return statistics.median(self.values(case, driver, "wall_ns")) / 1e6

    def ratio(self, case, driver, other_case, other):
        return self.wall(case, driver) / self.wall(other_case, other)

    def slowest_call(self):
        """Returns the most that a call takes longer than C's, in parts of C's time."""
        calls = [name for name in self.cases if name.startswith("data_path_")]
        medians = [
            [statistics.median(self.values(n, d, "call_ns")) for d in (OURS, C)] for n in calls
        ]
        return max(ours / c for ours, c in medians) - 1


# What is measured, how, and the limit. Figures that are missing raise an error: "not measured".
TARGETS = (
    ("8 functions of one bus opened together, vfio-pci / vfio_pci_rs",
     lambda b: b.ratio("bus_8_open", C, "bus_8_open", OURS), "≥", 5),
    ("8 functions of one bus opened together / one",
     lambda b: b.ratio("bus_8_open", OURS, "bus_1_open", OURS), "≤", 1.5),
    ("8 functions of one bus closed together / one",
     lambda b: b.ratio("bus_8_close", OURS, "bus_1_close", OURS), "≤", 2),
    ("function resets when 8 functions of one bus are closed together, the least",
     lambda b: min(b.values("bus_8_close", OURS, "function_resets")), "=", 8),
    ("the kernel's vfio_pci_device_init_perf_test on 8 functions, vfio-pci / vfio_pci_rs",
     lambda b: b.ratio("selftest_8", C, "selftest_8", OURS), "≥", 5),
    ("16 functions of 16 buses opened together, vfio_pci_rs / vfio-pci",
     lambda b: b.ratio("buses_16_open", OURS, "buses_16_open", C), "≤", 1.05),
    ("16 functions of 16 buses opened together, global mutex / vfio_pci_rs",
     lambda b: b.ratio("buses_16_open", GLOBAL, "buses_16_open", OURS), "≥", 8),
    ("7 virtual functions opened together, vfio_pci_rs / vfio-pci",
     lambda b: b.ratio("vfs_7_open", OURS, "vfs_7_open", C), "≤", 1.05),
    ("resets lost when 7 virtual functions are closed together, the most",
     lambda b: max(b.values("vfs_7_close", OURS, "lost")), "=", 0),
    ("64 functions closed together, vfio-pci / vfio_pci_rs",
     lambda b: b.ratio("scale_64_close", C, "scale_64_close", OURS), "≥", 1),
    ("bus resets when 8 dirty functions of a bus are closed together, the most",
     lambda b: max(b.values("dirty_8_close", OURS, "bus_resets")), "=", 1),
    ("bus resets when 8 dirty functions of a bus are closed together, the least",
     lambda b: min(b.values("dirty_8_close", OURS, "bus_resets")), "=", 1),
    ("200 functions bound, vfio_pci_rs / vfio-pci",
     lambda b: b.ratio("probe_200", OURS, "probe_200", C), "≤", 1.05),
    ("time of the slowest call of the data path beyond vfio-pci's, in parts of it",
     Benchmark.slowest_call, "≤", 0.02),
)  # fmt: skip


def targets(benchmark):
    """Returns the table of the targets, and how many are met."""
    rows = []
    for what, measure, sign, limit in TARGETS:
        try:
            figure = measure(benchmark)
            met = "yes" if COMPARISONS[sign](figure, limit) else "no"
            rows.append((what, f"{figure:.3g}", f"{sign} {limit}", met))
        except (ValueError, statistics.StatisticsError):
            rows.append((what, "not measured", f"{sign} {limit}", NOTHING))
    met = sum(row[-1] == "yes" for row in rows)
    return table.text(("target", "measured", "limit", "met"), rows), met


def number(value):
    """Returns a number with three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values, scale):
    """Returns "median (least-most)"."""
    if not values:
        return NOTHING
    figures = (statistics.median(values), min(values), max(values))
    return "{} ({}-{})".format(*(number(figure / scale) for figure in figures))


def times(benchmark, key, scale, is_chosen):
    """Returns the table of the cases that are chosen: a column a driver."""
    drivers, rows = benchmark.drivers, []
    for case in filter(is_chosen, benchmark.cases):
        figures = {driver: benchmark.values(case, driver, key) for driver in drivers}
        measured = figures.get(C) and figures.get(OURS)
        ratio = (
            statistics.median(figures[C]) / statistics.median(figures[OURS]) if measured else None
        )
        cells = [spread(figures[driver], scale) for driver in drivers]
        cells += [f"{ratio:.2f}" if ratio else NOTHING]
        cells += [lost(benchmark, case, driver) for driver in drivers]
        rows.append([benchmark.titles.get(case, case), *cells])
    head = ("", *drivers, f"{C} / {OURS}", *(f"{driver}: lost" for driver in drivers))
    return table.text(head, rows)


def lost(benchmark, case, driver):
    """Returns "lost of due", of all rounds."""
    due = sum(benchmark.values(case, driver, "due"))
    return f"{sum(benchmark.values(case, driver, 'lost'))} of {due}" if due else NOTHING


def markdown(benchmark, note):
    """Returns the report."""
    about, (aims, met) = benchmark.about, targets(benchmark)

    def is_call(case):
        return case.startswith("data_path_")

    return f"""<!-- SPDX-License-Identifier: GPL-2.0 -->
# Benchmark

`make bench` on kernel {about['kernel']} with {about['processors']} processors, {note}.
{about['rounds']} rounds; figures are medians, with the least and the most in brackets. Wall time
is from the start of the first function to the end of the last one. Lost are resets that were due
and not made.

![Functions of one bus, opened together](bus-open.svg)

![Resets lost](resets-lost.svg)

## Targets

{met} of {len(TARGETS)} met. Nothing fails because of them.

{aims}
## Wall time, ms

{times(benchmark, "wall_ns", 1e6, lambda case: not is_call(case))}
## Processor time, ms

{times(benchmark, "processor_ns", 1e6, lambda case: re.fullmatch(r"(bus|scale|dirty)_.*", case))}
## Calls on an open function, ns

{times(benchmark, "call_ns", 1, is_call)}"""


def bars(title, unit, groups):
    """Returns an SVG picture of bars. groups: {label: {series: value}}."""
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    most = max([value for values in groups.values() for value in values.values()] + [1])
    bar, gap, height, left, top = 26, 24, 220, 50, 60
    width = max(left + len(groups) * (gap + bar * len(series)) + gap, 420)

    def text(x, y, content, anchor="middle"):
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(str(content))}</text>'

    def rectangle(x, y, wide, tall, index):
        place = f'x="{x}" y="{y:.1f}" width="{wide}" height="{tall:.1f}"'
        return f'<rect {place} fill="{COLOURS[index]}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + height + 40}" '
        'font-family="sans-serif" font-size="11">',
        "<!-- SPDX-License-Identifier: GPL-2.0 -->",
        '<rect width="100%" height="100%" fill="white"/>',
        text(left, 18, f"{title}, {unit}", "start"),
    ]
    for index, name in enumerate(series):
        parts.append(rectangle(left + 125 * index, 28, 10, 10, index))
        parts.append(text(left + 125 * index + 15, 37, name, "start"))
    x = left + gap
    for label, values in groups.items():
        parts.append(text(x + bar * len(series) / 2, top + height + 16, label))
        for index, name in enumerate(series):
            if name in values:
                tall = height * values[name] / most
                parts.append(rectangle(x, top + height - tall, bar - 2, tall, index))
                parts.append(text(x + bar / 2, top + height - tall - 3, number(values[name])))
            x += bar
        x += gap
    return "\n".join([*parts, "</svg>\n"])


def pictures(benchmark):
    """Returns {file name: SVG} of the two pictures."""
    opened, losses = {}, {}
    for case in benchmark.cases:
        drivers = [driver for driver in benchmark.drivers if driver in benchmark.cases[case]]
        if match := re.fullmatch(r"bus_(\d+)_open", case):
            walls = {driver: benchmark.wall(case, driver) for driver in drivers}
            opened[f"{match[1]} functions"] = walls
        if match := re.fullmatch(r"vfs_(\d+)_close", case):
            sums = {driver: sum(benchmark.values(case, driver, "lost")) for driver in drivers}
            losses[f"{match[1]} VFs"] = sums
    return {
        "bus-open.svg": bars("Functions of one bus, opened together: wall time", "ms", opened),
        "resets-lost.svg": bars("VFs closed together: resets lost", "all rounds", losses),
    }


def write(parts, out, note):
    """Writes the report of `parts`, a guest's results each, to `out`; returns the targets."""
    benchmark = Benchmark(parts)
    (out / "benchmark.md").write_text(markdown(benchmark, note))
    for name, picture in pictures(benchmark).items():
        (out / name).write_text(picture)
    return targets(benchmark)[0]
