"""Histograms as inline SVG: of durations on a logarithmic axis, of shares from 0 to 1; and sparklines for tables."""

from __future__ import annotations

import math
import statistics
from typing import Callable, NamedTuple, Sequence

from slurm.view.sketch import Bin, Sketch
from slurm.view.svg import Box, Chart, grid
from slurm.view.words import counted, figures, share

HEIGHT, _TOP, _FOOT = 210.0, 34.0, 38.0
_SPANS = (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 300, 1200, 3600, 10800, 36000, 86400)
"""Round lengths for a wide axis; `_CLOSER` ones for a narrow axis."""
_CLOSER = tuple(
    unit * step
    for unit, steps in (
        (0.001, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (1, (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)),
        (60, (1, 2, 3, 5, 10, 15, 20, 30)),
        (3600, (1, 2, 3, 4, 6, 8, 12, 16, 24)),
    )
    for step in steps
)
_APART = 11.0
"""Labels below the axis are at least so many percent of the width apart."""


class Plot(NamedTuple):
    """What a histogram is of: `noun` (singular) counted, along `axis` (with its unit)."""

    noun: str
    axis: str
    says: str
    style: str = "one"


def span(seconds: float) -> str:
    """A length of time for a label: `82 ms`, `7.4 s`, `3.2 min`, `1.2 h`."""
    if seconds < 0.0995:
        return f"{figures(seconds * 1000, 2)} ms"
    if seconds < 100:
        return f"{figures(seconds, 2 if seconds < 10 else 3)} s"
    return f"{figures(seconds / 60, 2)} min" if seconds < 5940 else f"{figures(seconds / 3600, 2)} h"


class _Frame(NamedTuple):
    """A chart with its x axis (value → percent of the width) and the words for its values."""

    chart: Chart
    plot: Plot
    x: Callable[[float], float]
    say: Callable[[float], str]


def lengths(sketch: Sketch, plot: Plot) -> Chart:
    """Lengths in seconds on a logarithmic axis: bars of equal ratio, with median and 95th percentile."""
    bins = sketch.logarithmic()
    low, high = math.log10(bins[0].low or bins[0].high / 2), math.log10(bins[-1].high)

    def x(value: float) -> float:
        return 100 * (math.log10(value) - low) / (high - low) if value > 0 else 0.0

    frame = _Frame(Chart(HEIGHT, plot.says), plot, x, span)
    # Bins may differ in their ratio: the area of a bar tells its count.
    widths = [x(each.high) - x(each.low) for each in bins]
    common = statistics.median(widths)
    _bars(frame, bins, [each.size * common / width for each, width in zip(bins, widths)], sketch.count)
    _mark(frame, sketch)
    _span_ticks(frame, 10**low, 10**high)
    return frame.chart


def shares(sketch: Sketch, plot: Plot) -> Chart:
    """Shares from 0 to 1 in 50 even bars, with median and 95th percentile."""
    bins = sketch.parts(50)
    frame = _Frame(
        Chart(HEIGHT, plot.says), plot, lambda value: 100 * value, lambda value: f"{figures(100 * value)} %"
    )
    _bars(frame, bins, [float(each.size) for each in bins], sketch.count)
    _mark(frame, sketch)
    for place in range(0, 101, 25):
        frame.chart.text(place, HEIGHT - _FOOT + 16, f"{place} %", _tick(place))
    return frame.chart


def _tick(place: float) -> str:
    """The style of a label below the axis: centred, but within the chart."""
    return "tick" if place < 4 else "tick e" if place > 96 else "tick m"


def _bars(frame: _Frame, bins: Sequence[Bin], heights: Sequence[float], total: int) -> None:
    chart, plot, x, say = frame
    most, floor = max(heights), HEIGHT - _FOOT
    labels = grid(chart, _TOP, floor, most, plot.noun)
    for each, height in zip(bins, heights):
        left, right = x(each.low), x(each.high)
        tip = f"{say(each.low)} to {say(each.high)}: {counted(each.size, plot.noun)} ({share(each.size, total)})"
        if each.size:
            tall = max(1.0, (floor - _TOP) * height / most)
            gap = min(0.25, (right - left) * 0.12)
            chart.rect(Box(left + gap / 2, floor - tall, right - left - gap, tall), plot.style, tip)
    chart.add(labels)
    chart.text(100, HEIGHT - 4, plot.axis, "note e")


def _mark(frame: _Frame, sketch: Sketch) -> None:
    """The median, named above the bars."""
    value = sketch.quantile(0.5)
    place = min(100.0, max(0.0, frame.x(value)))
    frame.chart.line(place, 18, place, HEIGHT - _FOOT, "mark")
    frame.chart.text(place, 12, f"median {frame.say(value)}", "strong e" if place > 70 else "strong")


def _span_ticks(frame: _Frame, low: float, high: float) -> None:
    wide = [value for value in _SPANS if low <= value <= high]
    floor, last = HEIGHT - _FOOT, -_APART
    for value in wide if len(wide) > 2 else [value for value in _CLOSER if low <= value <= high]:
        place = frame.x(value)
        if place - last >= _APART:
            frame.chart.line(place, floor, place, floor + 4, "axis")
            frame.chart.text(place, floor + 16, "1 min" if value == 60 else span(value), _tick(place))
            last = place


def sparkline(sketch: Sketch) -> str:
    """A small histogram between the 1st and the 99th percentile."""
    low, high = sketch.quantile(0.01), sketch.quantile(0.99)
    bins = sketch.even(36, low, high)
    most = max(each.size for each in bins)
    bars = "".join(
        f"M{place * 3} 20v-{max(0.5, 19 * each.size / most):.1f}h2.5V20z"
        for place, each in enumerate(bins)
        if each.size
    )
    return f'<svg class="spark" width="108" height="20" aria-hidden="true"><path d="{bars}" class="one"/></svg>'
