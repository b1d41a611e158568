"""Whether a vocoder speaks the units it is given, and which speaker and style are meant. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence, Union

from pipelines.audio import RATE
from pipelines.core.errors import UsageError, listed
from pipelines.core.pipeline import Parameters
from pipelines.units import known, models


def verify_fit(info: models.ModelInfo, parameters: Parameters) -> None:
    """Raise UsageError where a vocoder was trained on other units than the quantizer's: their number, rate or name."""
    units = str(parameters.get("units", ""))
    size, given = info.config["vocabulary_size"], parameters.get("vocabulary_size")
    if given is not None and given != size:
        raise _misfit(info, f"speaks {size:,} different units, and the quantizer {units} gives {given:,}")
    hop, rate = info.config["hop"], parameters.get("rate")
    if rate and round(RATE / rate) != hop:
        raise _misfit(info, f"speaks {RATE / hop:g} units a second, and the quantizer {units} gives {rate:g}")
    voice, quantizer = known.find(info.name), known.find(Path(units).name)
    if voice and quantizer and voice.quantizer != quantizer.name:
        raise _misfit(info, f"is published for the units {voice.quantizer}, and these are {quantizer.name}")


def _misfit(info: models.ModelInfo, why: str) -> UsageError:
    return UsageError(
        f"The vocoder {info.name} {why}: it was trained on others, and would speak noise. Name the vocoder of these "
        "units with --vocoder, or the units of this vocoder with --units."
    )


def number_of(what: str, given: Union[str, int, None], names: Sequence[str], vocoder: str) -> Optional[int]:
    """The number of a speaker or style given by name or number; None: the first, or none. Raises UsageError."""
    if not names:
        if given is not None:
            raise UsageError(f"The vocoder {vocoder} has a single {what}; leave --{what} out.")
        return None
    if given is None:
        return 0
    if given in names:
        return list(names).index(str(given))
    number = int(given) if isinstance(given, int) or given.isdecimal() else len(names)
    if not 0 <= number < len(names):
        raise UsageError(
            f"The vocoder {vocoder} has no {what} {given!r}. It has {len(names)}: {listed(names, len(names))}. Give "
            f"one by name, or by number from 0 to {len(names) - 1}."
        )
    return number
