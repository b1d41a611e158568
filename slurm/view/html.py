"""Pieces of HTML. Whatever comes from outside (paths, messages, parameters) passes through `escape`."""

from __future__ import annotations

import re
from html import escape
from typing import Iterable, Optional, Sequence

__all__ = ["advice", "code", "columns", "definitions", "escape", "figure", "prose", "section", "table"]

_UNIT = re.compile(r"(\d) (ms|s|min|h|d|%|×)(?!\w)")
_TYPED = re.compile(r"`([^`]+)`")


def prose(text: str) -> str:
    """A sentence: escaped, and with no line break between a number and its unit."""
    return escape(_UNIT.sub("\\1\u00a0\\2", text), quote=False)


def advice(text: str) -> str:
    """A sentence with commands between backticks."""
    return _TYPED.sub(r"<code>\1</code>", prose(text))


def section(title: str, *parts: str, name: str = "") -> str:
    """A section under a heading; `title` is plain text."""
    place = f' id="{name}"' if name else ""
    return f"<section{place}><h2>{prose(title)}</h2>{''.join(parts)}</section>"


def figure(chart: object, caption: str, title: str = "") -> str:
    """A chart with what it shows, in words."""
    head = f"<h3>{prose(title)}</h3>" if title else ""
    return f"<figure>{head}<figcaption>{prose(caption)}</figcaption>{chart}</figure>"


def columns(*parts: str) -> str:
    """Pieces side by side where there is room, else below each other."""
    shown = [part for part in parts if part]
    return f'<div class="pair">{"".join(shown)}</div>' if shown else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = (), style: str = "") -> str:
    """A table. Cells are HTML; the columns named in `right` hold numbers."""
    aligned = ['<th class="n">' if place in right else "<th>" for place in range(len(head))]
    cells = ['<td class="n">' if place in right else "<td>" for place in range(len(head))]
    top = "".join(f"{tag}{escape(name)}</th>" for tag, name in zip(aligned, head))
    body = "".join("<tr>" + "".join(f"{tag}{cell}</td>" for tag, cell in zip(cells, row)) + "</tr>" for row in rows)
    kind = f' class="{style}"' if style else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(pairs: Iterable[tuple[str, Optional[str]]], style: str = "facts") -> str:
    """Names and values (HTML); those without a value are left out."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    return f'<dl class="{style}">{rows}</dl>'


def code(text: str) -> str:
    """Something to type, or a path."""
    return f"<code>{escape(text)}</code>"
