"""Items of a chain to look at and listen to: waveform with segments, units, transcript, original and resynthesis."""

from __future__ import annotations

import os
import subprocess
from typing import Optional

import msgspec

from pipelines.core import paths
from slurm import environments
from slurm.view.html import escape, prose, section
from slurm.view.svg import Box, Chart
from slurm.view.words import counted, figures

_WAVE, _UNITS = 92.0, 20.0
_ENVIRONMENT = "units"
_PATIENCE_S = 300


class Piece(msgspec.Struct):
    """As pipelines/units/exhibit.py gives it."""

    name: str
    duration: float
    shown_s: float
    peaks: list[tuple[float, float]]
    audio: str
    resynthesis: Optional[str] = None
    segments: list[tuple[float, float]] = []
    text: Optional[str] = None
    units: list[int] = []
    vocabulary_size: int = 0
    rate: float = 0.0


class Exhibit(msgspec.Struct):
    """As pipelines/units/exhibit.py gives it."""

    items: list[Piece] = []
    sampled: list[Piece] = []
    faults: list[str] = []


def gather(wanted: dict[str, Optional[str]]) -> Exhibit:
    """Read the items, in the environment that can read audio; what stands in the way is in `faults`."""
    if not environments.is_ready(_ENVIRONMENT):
        told = f"`./voxarray env create {_ENVIRONMENT}`, then the report again, shows items to listen to."
        return Exhibit(faults=[told])
    command = [str(environments.python(_ENVIRONMENT)), "-m", "pipelines.units.exhibit"]
    variables = {**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())}
    given = msgspec.json.encode({key: value for key, value in wanted.items() if value})
    try:
        done = subprocess.run(
            command, input=given, env=variables, capture_output=True, timeout=_PATIENCE_S, check=False
        )
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Exhibit)
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        why = str(error)
    return Exhibit(faults=[f"Items could not be read: {why}"])


def gallery(exhibit: Exhibit) -> str:
    """The section; empty where there is nothing to show."""
    shown = [_piece(piece) for piece in exhibit.items]
    if exhibit.sampled:
        shown.append("<h3>Sampled from the language model: nobody said this</h3>")
        shown += [_piece(piece) for piece in exhibit.sampled]
    shown += [f'<p class="note">{prose(fault)}</p>' for fault in exhibit.faults]
    return section("A few items to look at and listen to", *shown, name="items") if shown else ""


def _piece(piece: Piece) -> str:
    cut = f", the first {figures(piece.shown_s)} s of it" if piece.shown_s < piece.duration - 0.05 else ""
    head = f"<h3>{escape(piece.name)} <small>{figures(piece.duration)} s{cut}</small></h3>"
    text = f'<p class="said">{escape(piece.text)}</p>' if piece.text else ""
    return f'<article class="item">{head}{_drawing(piece)}{text}{_players(piece)}</article>'


def _players(piece: Piece) -> str:
    players = [("original" if piece.resynthesis else "", piece.audio), ("resynthesis", piece.resynthesis)]
    told = "".join(
        f'<label>{name}<audio controls preload="none" src="{escape(source)}"></audio></label>'
        for name, source in players
        if source
    )
    return f'<div class="players">{told}</div>'


def _drawing(piece: Piece) -> str:
    """Waveform over the stretches of speech, and below it the units, each in its colour."""
    units = _UNITS + 6 if piece.units else 0.0
    told = (
        counted(len(piece.segments), "stretch of speech", "stretches of speech") if piece.segments else "no segments"
    )
    chart = Chart(_WAVE + units, f"Waveform of {piece.name}: {told}; {len(piece.units):,} units")
    seconds = piece.shown_s or 1.0
    for begin, end in piece.segments:
        last = min(end, seconds)
        tip = f"speech from {figures(begin)} s to {figures(end)} s"
        chart.rect(Box(100 * begin / seconds, 0, 100 * (last - begin) / seconds, _WAVE), "speech", tip)
    loudest = max((max(-low, high) for low, high in piece.peaks), default=0.0) or 1.0
    middle, width = _WAVE / 2, 100 / max(1, len(piece.peaks))
    chart.blocks(
        (
            Box(place * width, middle - middle * high / loudest, width, max(0.6, middle * (high - low) / loudest))
            for place, (low, high) in enumerate(piece.peaks)
        ),
        "wave",
    )
    _stripes(chart, piece, seconds)
    return str(chart)


def _stripes(chart: Chart, piece: Piece, seconds: float) -> None:
    """One stripe a run of equal units; neighbouring numbers get colours far apart."""
    start = 0
    for place in range(1, len(piece.units) + 1):
        if place < len(piece.units) and piece.units[place] == piece.units[start]:
            continue
        unit = piece.units[start]
        x, width = 100 * start / piece.rate / seconds, 100 * (place - start) / piece.rate / seconds
        chart.add(
            f'<rect x="{x:.2f}%" y="{_WAVE + 6:g}" width="{width:.2f}%" height="{_UNITS:g}" '
            f'fill="hsl({unit * 137.508 % 360:.0f} 55% 55%)"><title>unit {unit}</title></rect>'
        )
        start = place
