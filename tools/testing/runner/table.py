# SPDX-License-Identifier: GPL-2.0
"""Tables in plain text and in Markdown, which are the same."""


def text(head, rows):
    """Returns a table. Numbers behind the first column are aligned right."""
    rows = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]

    def line(row):
        first, *cells = zip(row, widths)
        padded = (c.rjust(w) if c[:1].isdigit() else c.ljust(w) for c, w in cells)
        return f"| {' | '.join([first[0].ljust(first[1]), *padded])} |\n"

    return line(head) + line(["-" * width for width in widths]) + "".join(map(line, rows[1:]))
