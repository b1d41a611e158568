"""What a run of trainings publishes: the leaderboard, as a table (CSV, JSON) and as a plot of all learning curves."""

from __future__ import annotations

import csv
import io
from html import escape
from pathlib import Path
from typing import Any, Optional, Sequence

import msgspec

from pipelines.core import paths
from pipelines.core.manifest import Item
from pipelines.core.output import OutputWriter, published_by
from pipelines.core.pipeline import ErrorInfo, OutputFile
from pipelines.core.plan import Plan

COLUMNS = (
    *("rank", "name", "bits_per_unit", "perplexity", "bits_per_second", "test_bits_per_unit", "epochs", "steps"),
    *("model_parameters", "tokens_per_second", "training_seconds"),
)
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_SHADES = ("#1b6ca8", "#c4572b", "#2c8a57", "#7a4fa3", "#a8841b", "#b0306a", "#3b8ea5", "#5f6b2d")


class Leaderboard:
    """The consumer of the merge: `leaderboard.csv`, `.json` and `.svg` in the folder of the run's checkpoints."""

    def __init__(self, plan: Plan) -> None:
        folder = paths.home() / "output" / "checkpoints" / plan.run_id
        ours = published_by(plan.run_id)
        self._csv, self._json, self._svg = (
            OutputWriter(folder / f"leaderboard.{suffix}", ours) for suffix in ("csv", "json", "svg")
        )
        self._varied = list(plan.parameters["grid"])
        self._rows: list[dict[str, Any]] = []

    def open(self) -> None:
        """Open the private files."""
        for writer in self._writers:
            writer.open()

    @property
    def _writers(self) -> tuple[OutputWriter, OutputWriter, OutputWriter]:
        return self._csv, self._json, self._svg

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:
        """Take one combination."""
        name = Path(item.audio_filepath).name
        if result is not None:
            self._rows.append({"name": name, "folder": item.audio_filepath, **_decode(result)})
        elif error is not None:
            self._rows.append({"name": name, "folder": item.audio_filepath, "error": error.message})

    def publish(self) -> list[OutputFile]:
        """Rank, write, and give the files their names."""
        done = sorted((row for row in self._rows if "error" not in row), key=lambda row: row["bits_per_unit"])
        for rank, row in enumerate(done, 1):
            row["rank"] = rank
        failed = [row for row in self._rows if "error" in row]
        self._csv.write(_table([*done, *failed], self._varied).encode(), rows=len(self._rows))
        for row in (*done, *failed):
            self._json.write(msgspec.json.encode(row) + b"\n")
        self._svg.write(curves(done).encode(), rows=len(done))
        for writer in self._writers:
            writer.finish()
        return [writer.publish() for writer in self._writers]

    def abandon(self) -> None:
        """Remove the private files."""
        for writer in self._writers:
            writer.abandon()


def _table(rows: Sequence[dict[str, Any]], varied: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *varied, "checkpoint", "error"])
    for row in rows:
        settings = row.get("settings", {})
        figures = [_rounded(row.get(name, "")) for name in COLUMNS]
        writer.writerow([*figures, *(settings.get(name, "") for name in varied), row["folder"], row.get("error", "")])
    return text.getvalue()


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else "" if value is None else value


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """The validation curve of every training, the best in front, as a self-contained SVG."""
    width, height, left, below, legend = 860, 420, 56, 40, 300
    lines = [[(entry["epoch"], entry["bits_per_unit"]) for entry in row["history"]] for row in rows]
    points = [point for line in lines for point in line]
    if not points:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"/>\n'
    last = max(2, *(epoch for epoch, _ in points))
    low, high = min(bits for _, bits in points), sorted(bits for _, bits in points)[int(0.97 * (len(points) - 1))]
    high = max(high, low + 1e-6)

    def place(epoch: float, bits: float) -> str:
        x = left + (epoch - 1) / (last - 1) * (width - left - legend)
        y = 16 + (high - min(bits, high)) / (high - low) * (height - below - 16)
        return f"{x:.1f},{y:.1f}"

    size = f'width="{width}" height="{height}" font-family="sans-serif" font-size="11"'
    title = "<title>Bits per unit in validation, by epoch</title>"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{title}']
    for share in range(5):
        bits = low + (high - low) * share / 4
        y = place(1, bits).split(",")[1]
        parts.append(f'<line x1="{left}" x2="{width - legend}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{bits:.3f}</text>')
    for number in range(len(rows) - 1, -1, -1):
        shade, strong = _SHADES[number % len(_SHADES)], 2.5 if number == 0 else 1
        path = " ".join(place(*point) for point in lines[number])
        parts.append(f'<polyline fill="none" stroke="{shade}" stroke-width="{strong}" points="{path}"/>')
        if number < 24:
            name = escape(f"{rows[number]['bits_per_unit']:.4f}  {rows[number]['name']}")
            parts.append(f'<text x="{width - legend + 10}" y="{24 + 15 * number}" fill="{shade}">{name}</text>')
    parts.append(f'<text x="{left}" y="{height - 12}">epoch 1</text>')
    parts.append(f'<text x="{width - legend}" y="{height - 12}" text-anchor="end">epoch {last}</text></svg>\n')
    return "\n".join(parts)
