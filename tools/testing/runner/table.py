# SPDX-License-Identifier: GPL-2.0
"""Tables in plain text and in Markdown, which are the same."""


def text(head, rows):
    """Returns a table. A column of numbers is aligned right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    right = [
        bool(rows) and all(cell[:1].isdigit() or cell in ("", "-") for cell in column)
        for column in zip(*rows)
    ]
    right = right or [False] * len(head)

    def line(cells):
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(cells, widths, right))
        return f"| {' | '.join(padded)} |\n"

    rule = "|".join(
        "-" * (width + 1) + (":" if is_right else "-") for width, is_right in zip(widths, right)
    )
    return line(head) + f"|{rule}|\n" + "".join(map(line, rows))
