# SPDX-License-Identifier: GPL-2.0
"""The terminal of a command: prints its lines, and draws all of them as SVG."""

from html import escape
from textwrap import wrap

COLUMNS = 100
# In pixels, at a font size of 12.
WIDTH, HEIGHT, MARGIN = 7.2, 16, 12
STYLE = 'font-family="ui-monospace, Consolas, Liberation Mono, monospace" font-size="12"'
BACKGROUND, TEXT, COMMAND = "#1b1f24", "#d7dde3", "#7ee787"
NOTE = "    # "


class Terminal:
    """The output of `command`."""

    def __init__(self, command):
        self.command, self.lines, self.rest = command, [], ""

    def print(self, text):
        print(text, flush=True)
        self.lines += text.split("\n")

    def notes(self, new):
        """Prints the notes, and the rounds, in a guest's output, which comes in pieces of bytes."""
        *lines, self.rest = (self.rest + new.decode(errors="replace")).split("\n")
        for line in lines:
            if line.startswith((NOTE, "round ")):
                line = "  " + line.removeprefix(NOTE)
                more = line[: len(line) - len(line.lstrip())] + "  "
                self.print("\n".join(wrap(line, COLUMNS, subsequent_indent=more)))

    def picture(self):
        lines = [f"$ {self.command}", *self.lines]
        width = round(2 * MARGIN + WIDTH * max(map(len, lines)))
        height = 2 * MARGIN + HEIGHT * len(lines)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {STYLE}>',
            "<!-- SPDX-License-Identifier: GPL-2.0 -->",
            f'<rect width="{width}" height="{height}" rx="6" fill="{BACKGROUND}"/>',
        ]
        for number, line in enumerate(lines):
            # Fixes the columns of a table in any font.
            length = f'textLength="{WIDTH * len(line):.1f}" lengthAdjust="spacingAndGlyphs"'
            colour, y = TEXT if number else COMMAND, MARGIN + HEIGHT * number + 12
            if line:
                parts.append(f'<text x="{MARGIN}" y="{y}" fill="{colour}" xml:space="preserve" '
                             f"{length}>{escape(line)}</text>")  # fmt: skip
        return "\n".join([*parts, "</svg>\n"])
