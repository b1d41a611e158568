"""Inline SVG that follows the width of the page: x in percent of it, y in pixels, text never scaled.

Curves, which cannot be given in percent, are drawn in a nested view that is stretched; their lines keep their weight.
"""

from __future__ import annotations

import math
from html import escape
from typing import Iterable, NamedTuple, Sequence

from slurm.view.words import counted, figures


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Box(NamedTuple):
    """Where a rectangle is: `x` and `width` in percent of the chart's width, `y` and `height` in pixels."""

    x: float
    y: float
    width: float
    height: float


def label(x: float, y: float, text: str, style: str) -> str:
    """SVG source of a text."""
    return f'<text x="{number(x)}%" y="{number(y)}" class="{style}">{escape(text)}</text>'


class Chart:
    """A chart under construction. `says` is what a screen reader reads in its place."""

    def __init__(self, height: float, says: str) -> None:
        self.height = height
        self._says = says
        self._parts: list[str] = []

    def add(self, text: str) -> None:
        """Append SVG source."""
        self._parts.append(text)

    def rect(self, box: Box, style: str, tip: str = "") -> None:
        """A rectangle; `tip` appears when the pointer rests on it."""
        x, y, width, height = box
        shape = (
            f'<rect x="{number(x)}%" y="{number(y)}" width="{number(max(0.0, width))}%" '
            f'height="{number(max(0.0, height))}" class="{style}"'
        )
        self.add(f"{shape}><title>{escape(tip)}</title></rect>" if tip else f"{shape}/>")

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight line."""
        self.add(f'<line x1="{number(x1)}%" y1="{number(y1)}" x2="{number(x2)}%" y2="{number(y2)}" class="{style}"/>')

    def text(self, x: float, y: float, text: str, style: str) -> None:
        """Text; the style `m` centres it and `e` ends it at `x`."""
        self.add(label(x, y, text, style))

    def curve(self, points: Sequence[tuple[float, float]], floor: float, style: str) -> None:
        """A filled curve over (x percent, y pixels), down to `floor`."""
        if len(points) < 2:
            return
        path = " ".join(f"{number(x * 10)},{number(y)}" for x, y in points)
        area = f"M{number(points[0][0] * 10)},{number(floor)} L{path} L{number(points[-1][0] * 10)},{number(floor)}Z"
        self._stretched(f'<path d="{area}" class="{style} area"/><path d="M{path}" class="{style} stroke"/>')

    def blocks(self, blocks: Iterable[Box], style: str) -> None:
        """Many rectangles as one path: small, but without tips."""
        steps = (
            f"M{number(x * 10)},{number(y)}h{number(width * 10)}v{number(height)}h{number(-width * 10)}z"
            for x, y, width, height in blocks
        )
        path = "".join(steps)
        if path:
            self._stretched(f'<path d="{path}" class="{style}"/>')

    def _stretched(self, inner: str) -> None:
        self.add(
            f'<svg width="100%" height="{number(self.height)}" viewBox="0 0 1000 {number(self.height)}" '
            f'preserveAspectRatio="none">{inner}</svg>'
        )

    def __str__(self) -> str:
        says = escape(self._says, quote=True)
        return (
            f'<svg class="chart" width="100%" height="{number(self.height)}" role="img" aria-label="{says}">'
            f"{''.join(self._parts)}</svg>"
        )


def nice_steps(most: float, wanted: int = 4, least: float = 0.0) -> list[float]:
    """Round values from 0 up to at most `most`: about `wanted` steps of 1, 2 or 5 times a power of ten.

    No step is smaller than `least`.
    """
    if most <= 0:
        return [0.0]
    rough = max(most / wanted, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [place * step for place in range(int(most / step + 1e-9) + 1)]


def grid(chart: Chart, top: float, floor: float, most: float, noun: str = "") -> str:
    """Horizontal lines at round values, whole ones of a `noun`.

    Returns their labels, to be added once the bars are drawn: they lie on top.
    """
    steps = nice_steps(most, least=1.0 if noun else 0.0)
    labels = []
    for step in steps:
        y = floor - (floor - top) * step / most if most else floor
        chart.line(0, y, 100, y, "axis" if step == 0 else "grid")
        if step:
            said = counted(round(step), noun) if noun and step == steps[-1] else figures(step)
            labels.append(label(0, y - 4, said, "tick halo"))
    return "".join(labels)
