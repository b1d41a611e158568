"""Repetition loops: what decoders that write freely (LLMs, attention) produce when they lose the thread.

Such a decoder says the same words again and again until it may say no more. Nobody speaks like that: the text then
holds more words than its seconds can. So a text is cut only where both are the case, a run of repeats and too many
words for the time; people do say "no no no no", and announcements are repeated. Repeats that the time could hold
are marked and left.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Sequence

LOOP, REPEATS, TOO_MANY_WORDS = "loop", "repeats", "too many words"

WORDS_A_SECOND = 7.0
"""Nobody speaks faster for longer than a word or two (fast speech has 4 to 6 words a second) …"""
_FREE_WORDS = 5
"""… so these come on top."""
CHARACTERS_A_SECOND = 40.0
_FREE_CHARACTERS = 40
"""The same for characters: fast speech has 25 to 30 a second, in whatever language."""
_LONGEST = 60
"""Words of the longest unit that is looked for: a long sentence."""
_LOOP_TIMES, _REPEAT_TIMES, _REPEAT_WORDS = 3, 8, 16
"""So many times a unit is there in a loop; and, where the time could hold it, so many times and words to be marked."""

# Scripts without spaces between words: each character counts for itself (kana, Han, Thai, Lao, Myanmar, Khmer).
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_TOKEN = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+(?:['’\-][^\W{_SPACELESS}]+)*")
_IS_SPACELESS = re.compile(rf"[{_SPACELESS}]")
_LONG_WORD = 24
"""Longer "words" are taken apart into characters: a loop may be within one ("hahaha…", "aaaaa…")."""


class Checked(NamedTuple):
    """A text after the check. `flag` is LOOP (and then it was cut), REPEATS, TOO_MANY_WORDS, or None."""

    text: str
    flag: Optional[str]
    kept: tuple[tuple[int, int], ...]
    """The stretches of the original text (first character, character after the last) that are left."""


class _Token(NamedTuple):
    """A word, folded so that equal words are equal; its place in the text; how much of a word it counts for."""

    key: str
    start: int
    end: int
    weight: float


class _Run(NamedTuple):
    """Tokens first … last-1 that repeat a unit of `period` tokens, the last repeat maybe cut short."""

    first: int
    last: int
    period: int

    @property
    def times(self) -> float:
        return (self.last - self.first) / self.period


def check(text: str, seconds: float) -> Checked:
    """Look for loops in the text of `seconds` of audio, and cut them: one repeat stays, and what follows them."""
    tokens = _tokens(text)
    kept: list[tuple[int, int]] = [(0, len(text))]
    flag = None
    # Each round takes out the largest loop; a text can hold several, and one inside the unit of another.
    while _is_too_much(tokens, seconds):
        run = _worst(tokens)
        if run is None:
            flag = flag or TOO_MANY_WORDS
            break
        flag = LOOP
        dropped = tokens[run.first + run.period : run.last]
        kept = _without(kept, dropped[0].start, dropped[-1].end, text)
        tokens = tokens[: run.first + run.period] + tokens[run.last :]
    if flag is None and _repeats(tokens):
        flag = REPEATS
    if flag != LOOP:
        return Checked(text, flag, tuple(kept))
    return Checked(_joined([text[start:end] for start, end in kept]), flag, tuple(kept))


def _joined(parts: Sequence[str]) -> str:
    """Parts of a text as one, with a space where one of two had it at the seam."""
    joined = ""
    for part in parts:
        apart = joined[-1:].isspace() or part[:1].isspace()
        joined = joined.rstrip() + (" " if apart and joined.strip() else "") + part.lstrip()
    return joined.rstrip()


def kept_words(text: str, words: Sequence[str], checked: Checked) -> list[int]:
    """Which of the words (in order, as they stand in `text`) are left after the check, by their places in the list.

    Words that are not found in the text are left.
    """
    found, at = [], 0
    for place, word in enumerate(words):
        start = text.find(word, at)
        if start >= 0:
            at = start + len(word)
        if start < 0 or any(first <= start < last for first, last in checked.kept):
            found.append(place)
    return found


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        word = match[0].casefold()
        start = match.start()
        if len(match[0]) > _LONG_WORD:
            # 6 characters count for a word.
            found += [_Token(char.casefold(), start + n, start + n + 1, 1 / 6) for n, char in enumerate(match[0])]
        else:
            found.append(_Token(word, start, match.end(), 0.5 if _IS_SPACELESS.match(word) else 1.0))
    return found


def _is_too_much(tokens: Sequence[_Token], seconds: float) -> bool:
    """Whether nobody could say all of that in so many seconds."""
    words = sum(token.weight for token in tokens)
    characters = sum(token.end - token.start for token in tokens)
    return (
        words > WORDS_A_SECOND * seconds + _FREE_WORDS or characters > CHARACTERS_A_SECOND * seconds + _FREE_CHARACTERS
    )


def _runs(tokens: Sequence[_Token], least: float) -> list[_Run]:
    """The longest runs of repeats for each period, in which the unit is there `least` times or more."""
    keys = [token.key for token in tokens]
    found = []
    for period in range(1, min(_LONGEST, int(len(keys) / least)) + 1):
        best = current = 0
        end = 0
        for place in range(period, len(keys)):
            current = current + 1 if keys[place] == keys[place - period] else 0
            if current > best:
                best, end = current, place + 1
        run = _Run(end - best - period, end, period)
        if best and run.times >= least:
            found.append(run)
    return found


def _worst(tokens: Sequence[_Token]) -> Optional[_Run]:
    """The run whose repeats are most tokens; of equals, the one with the shortest unit."""
    runs = _runs(tokens, _LOOP_TIMES)
    return max(runs, key=lambda run: (run.last - run.first - run.period, -run.period), default=None)


def _repeats(tokens: Sequence[_Token]) -> bool:
    """Whether something is said so often that it is worth a look."""
    words = [token for token in tokens if token.weight >= 0.5]
    return any(
        sum(token.weight for token in words[run.first : run.last]) >= _REPEAT_WORDS
        for run in _runs(words, _REPEAT_TIMES)
    )


def _without(kept: list[tuple[int, int]], start: int, end: int, text: str) -> list[tuple[int, int]]:
    """The stretches without that one, and without the punctuation that follows it."""
    while end < len(text) and not (text[end].isalnum() or text[end].isspace() or _IS_SPACELESS.match(text[end])):
        end += 1
    halves = [half for first, last in kept for half in ((first, min(last, start)), (max(first, end), last))]
    return [(first, last) for first, last in halves if last > first]
