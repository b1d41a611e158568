"""Errors of transcripts: substitutions, deletions and insertions of words and characters, raw and normalised.

Counted by jiwer, with the normalisers of Whisper (Radford et al. 2022, appendix C) as the public leaderboards use
them: the English one for English, the basic one for other languages. Runs in the environment `asr`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Callable, NamedTuple, Optional, Sequence

import msgspec

from pipelines.core.errors import EnvironmentNotFit

RAW, NORMALISED = "raw", "normalised"
LANGUAGE_FIELDS = ("language", "lang", "target_lang", "source_lang")
"""Where a row says what language it is in."""
UNKNOWN = "unknown"

_SPACELESS = {"zh", "yue", "ja", "th", "lo", "my", "km", "bo"}
"""Languages that are written without spaces between words: there every character counts as a word."""
_NAMES = {"english": "en", "eng": "en", "chinese": "zh", "mandarin": "zh", "cmn": "zh", "japanese": "ja", "thai": "th"}

Value = Optional[str]


class Counts(msgspec.Struct):
    """What was right and wrong of the words, or the characters, of references."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def total(self) -> int:
        """Words (characters) of the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """All that is wrong."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> Optional[float]:
        """Errors in percent of the references' words; None where these have none. May be above 100."""
        return 100 * self.errors / self.total if self.total else None

    def add(self, other: Counts) -> None:
        """Add another's counts."""
        self.hits += other.hits
        self.substitutions += other.substitutions
        self.deletions += other.deletions
        self.insertions += other.insertions


class Pair(msgspec.Struct):
    """Word and character errors."""

    words: Counts
    characters: Counts

    def add(self, other: Pair) -> None:
        """Add another's counts."""
        self.words.add(other.words)
        self.characters.add(other.characters)


class Columns(NamedTuple):
    """Which fields of a row are what. `by` are fields to count apart; `language` is that of rows that name none."""

    reference: str
    hypothesis: str
    by: tuple[str, ...] = ()
    language: str = "en"


class Scored(NamedTuple):
    """One row. Without a reference or a hypothesis, `raw` and `normalised` are None."""

    path: str
    seconds: Optional[float]
    groups: tuple[Value, ...]
    """The values of the fields to count apart; None where the row lacks the field."""
    reference: Value
    hypothesis: Value
    raw: Optional[Pair]
    normalised: Optional[Pair]
    missed: Optional[Pair] = None
    """Without a hypothesis: the normalised counts of an empty one."""


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def verify() -> None:
    """Raise EnvironmentNotFit, with the command that mends it, if a package cannot be imported."""
    try:
        import jiwer  # noqa: F401
        import whisper_normalizer.english  # noqa: F401
    except ImportError as error:
        raise EnvironmentNotFit(
            f"This Python cannot import what counts word errors ({error}). `./voxarray wer` runs in the environment "
            "of the transcripts: make it with `./voxarray env create asr`; by hand: `pip install jiwer "
            "whisper_normalizer`."
        ) from None


def score(rows: Sequence[bytes], columns: Columns) -> list[Scored]:
    """Every row of a manifest (bytes of one line each) against its reference."""
    return [_score(_decode(row), columns) for row in rows]


def _score(row: dict[str, Any], columns: Columns) -> Scored:
    reference, hypothesis = _text(row, columns.reference), _text(row, columns.hypothesis)
    duration = row.get("duration")
    head = (
        str(row.get("audio_filepath", "")),
        float(duration) if isinstance(duration, (int, float)) else None,
        tuple(_value(row, name) for name in columns.by),
        reference,
        hypothesis,
    )
    if reference is None:
        return Scored(*head, None, None)
    normalise = normaliser(language_of(row, columns.language))
    if hypothesis is None:
        return Scored(*head, None, None, compared(normalise(reference), ""))
    return Scored(*head, compared(reference, hypothesis), compared(normalise(reference), normalise(hypothesis)))


def _text(row: dict[str, Any], name: str) -> Value:
    value = row.get(name)
    return None if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(row: dict[str, Any], name: str) -> Value:
    """A group's name. Lists and the like are written as JSON; an empty one is none."""
    value = row.get(name)
    if isinstance(value, (list, dict)) and not value:
        return None
    return _text(row, name)


def language_of(row: dict[str, Any], usual: str) -> str:
    """The language of a row as a short code: `en` for en-US, EN and English."""
    named = next((row[name] for name in LANGUAGE_FIELDS if isinstance(row.get(name), str) and row[name]), usual)
    short: str = named.casefold().replace("_", "-").split("-")[0].strip()
    return _NAMES.get(short, short)


@lru_cache(maxsize=64)
def normaliser(language: str) -> Callable[[str], str]:
    """Whisper's normaliser for a language."""
    if language == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        english: Callable[[str], str] = EnglishTextNormalizer()
        return english
    from whisper_normalizer.basic import BasicTextNormalizer

    basic: Callable[[str], str] = BasicTextNormalizer(split_letters=language in _SPACELESS)
    return basic


def compared(reference: str, hypothesis: str) -> Pair:
    """The errors of one text. With an empty reference, all that was recognised is inserted."""
    import jiwer

    words = jiwer.process_words(reference, hypothesis)
    characters = jiwer.process_characters(reference, hypothesis)
    return Pair(
        *(Counts(each.hits, each.substitutions, each.deletions, each.insertions) for each in (words, characters))
    )
