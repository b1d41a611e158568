"""Plain text for terminals: aligned tables that give up columns before they wrap, bars, and colours where wanted."""

from __future__ import annotations

import os
import re
import shutil
from typing import IO, NamedTuple, Sequence

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
_ESCAPE = re.compile(r"(\x1b\[[0-9;]*m)")
_RESET = "\x1b[0m"
NARROWEST, WIDEST = 60, 140


class Terminal(NamedTuple):
    """What the output is like: its width in columns, whether it takes colours, whether it shows more than ASCII."""

    width: int = 80
    colours: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: IO[str]) -> Terminal:
        """The terminal behind a stream. Colours only on a terminal, and never where $NO_COLOR is set."""
        is_terminal = stream.isatty()
        colours = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size().columns or 80  # Python 3.9 gives 0 for a terminal without a size
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        return cls(max(NARROWEST, min(WIDEST, columns)), colours, encoding.startswith("utf"))

    def paint(self, text: str, *styles: str) -> str:
        """`text` in the named styles, where colours are taken."""
        if not self.colours or not text or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}{_RESET}"

    def bar(self, share: float, width: int) -> str:
        """A progress bar; full only when all is done."""
        filled = min(width, int(share * width))
        full, empty = ("█", "░") if self.unicode else ("#", ".")
        return self.paint(full * filled, "blue") + self.paint(empty * (width - filled), "dim")


class Column(NamedTuple):
    """A column of a table. Columns with the highest `spare` go first where the width does not suffice; 0: never."""

    title: str
    right: bool = False
    spare: int = 0
    most: int = 0


def visible(text: str) -> int:
    """The length of a text on the screen."""
    return len(_ESCAPE.sub("", text))


def fit(text: str, most: int) -> str:
    """`text` in at most `most` columns (0: as it is), with a sign where it was cut; no colour runs on behind it."""
    if not most or visible(text) <= most:
        return text
    kept, room, last = "", most - 1, _RESET
    for place, piece in enumerate(_ESCAPE.split(text)):
        is_style = place % 2 == 1
        kept += piece if is_style else piece[:room]
        if is_style:
            last = piece
        elif len(piece) > room:
            break
        else:
            room -= len(piece)
    return f"{kept}…{'' if last == _RESET else _RESET}"


def table(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    """The lines of a table, header first. Columns that are empty in every row are left out."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    cells = {place: [fit(row[place], columns[place].most) for row in rows] for place in kept}
    widths = {place: max(len(columns[place].title), *map(visible, cells[place])) for place in kept}
    while sum(widths[place] for place in kept) + gap * (len(kept) - 1) > terminal.width:
        spare = max(kept, key=lambda place: columns[place].spare)
        if not columns[spare].spare:
            break
        kept.remove(spare)

    def line(texts: dict[int, str]) -> str:
        padded = []
        for place in kept:
            space = " " * (widths[place] - visible(texts[place]))
            padded.append(space + texts[place] if columns[place].right else texts[place] + space)
        return (" " * gap).join(padded).rstrip()

    head = terminal.paint(line({place: columns[place].title for place in kept}), "dim")
    return [head, *(line({place: cells[place][number] for place in kept}) for number in range(len(rows)))]


def wrapped(text: str, width: int, indent: str) -> list[str]:
    """A paragraph in lines of at most `width` columns, all indented; long words (paths, commands) stay whole."""
    lines: list[str] = []
    line = indent
    for word in text.split(" "):
        if visible(line) + 1 + visible(word) > width and line.strip():
            lines.append(line)
            line = indent
        line += word if line == indent else f" {word}"
    return [*lines, line]
