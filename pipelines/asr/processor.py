"""The loaded recogniser, taking recordings of any length from the engine and giving each its text."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, ContextManager, Iterable, Iterator, NamedTuple, NoReturn, Optional, Sequence, Union

import numpy as np

from pipelines.asr import backends, loops, sizes
from pipelines.asr.backends import Transcript
from pipelines.asr.batching import Batcher, DeviceLostError
from pipelines.asr.cutting import Cutting, Piece, cut
from pipelines.asr.given import GivenSegments
from pipelines.asr.options import segments_version
from pipelines.audio.items import Audio
from pipelines.core import paths
from pipelines.core.errors import UsageError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources

log = logging.getLogger(__name__)

_ON_GPU = (4096, 14400.0)
"""Items in a batch of the engine's, and seconds: what padding is made small over, and what a killed process loses."""
_DIED = 70
"""Exit status of a process whose GPU no longer answers (sysexits' EX_SOFTWARE)."""

_BESIDE = ("segments", "words", "flags")
"""The fields that tell more of a text."""
_NO_SAMPLES = np.empty(0, np.float32)

Result = Union[dict[str, Any], Exception]


class _Recording(NamedTuple):
    """One item's audio, and what was recognised: its pieces, without their samples."""

    item: Item
    audio: Audio
    found: list[tuple[Piece, Union[Transcript, Exception]]]


class AsrProcessor:
    """Transcripts as the engine calls for them. On a GPU, batches take turns while others are decoded and cut."""

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._parameters = parameters
        self._backend = backends.load(parameters["backend"], parameters["model"], parameters["settings"], resources)
        backend = self._backend
        longest = min(backend.longest_s, parameters["longest"] or backend.longest_s)
        self._how = Cutting(longest, vad=parameters["vad"])
        self._given = _given(parameters)
        self._words = bool(parameters["words"])
        self._field = str(parameters["field"])
        if self._words and not backend.has_words:
            log.warning("%s gives no times of words; `words` will be missing.", parameters["model"])
        self.batch_items, self.batch_seconds = _ON_GPU if backend.on_gpu else backend.together
        self.concurrency = 2 if backend.on_gpu else min(resources.cpus, max(1, backend.concurrency))
        self._decoders = resources.cpus if backend.on_gpu else 0
        self._turn: ContextManager[Any] = Lock() if backend.on_gpu or backend.concurrency == 1 else nullcontext()
        self._batcher = Batcher(
            lambda pieces: backend.transcribe(pieces, self._words),
            self._size(),
            overhead=backend.overhead,
            encoder_overhead=backend.encoder_overhead,
        )

    def _size(self) -> sizes.Size:
        """What batches may hold: remembered for the model, its precision and the device."""
        if not self._backend.on_gpu:
            return sizes.Size(self._backend.batch_s)
        import torch

        precision = self._parameters["settings"].get("precision", "auto")
        what = (self._parameters["backend"], self._parameters["model"], precision, torch.cuda.get_device_name())
        path = sizes.file_for(paths.home() / "output" / "cache" / "batches", *what)
        return sizes.Size(self._backend.batch_s, path, sizes.gpu_filled)

    def process(self, items: Sequence[Item]) -> Sequence[Result]:
        """Each item's text, or why there is none. Nothing is added to rows that have one already."""
        todo = [item for item in items if self._parameters["redo"] or not _has(item, self._field)]
        found = dict(zip((item.index for item in todo), self._transcribed(todo)))
        return [found.get(item.index, {}) for item in items]

    def _transcribed(self, items: Sequence[Item]) -> list[Result]:
        recordings = [_Recording(item, Audio(item), []) for item in items]
        waiting: list[tuple[_Recording, Piece]] = []
        seconds = 0.0
        with self._cutters() as pool:
            cut_all = pool.map if pool is not None else map
            for recording, pieces in zip(recordings, cut_all(self._pieces, recordings)):
                for piece in pieces:
                    waiting.append((recording, piece))
                    seconds += piece.duration
                    # What the engine gives at once is less than this, unless a recording is longer: memory stays flat.
                    if seconds > 2 * self.batch_seconds:
                        self._recognise(waiting)
                        waiting, seconds = [], 0.0
        self._recognise(waiting)
        return [self._result(recording) for recording in recordings]

    def _recognise(self, waiting: Sequence[tuple[_Recording, Piece]]) -> None:
        """Take pieces through the model, but for those of recordings that could not be read."""
        sound = [(recording, piece) for recording, piece in waiting if recording.audio.fault is None]
        with self._turn:
            try:
                results = self._batcher.run([piece.samples for _, piece in sound])
            except DeviceLostError as error:
                _die(error)
        for (recording, piece), result in zip(sound, results):
            recording.found.append((piece._replace(samples=_NO_SAMPLES), result))

    def _cutters(self) -> ContextManager[Optional[ThreadPoolExecutor]]:
        """Threads that decode and cut, where a GPU waits for them; a CPU's threads have a batch each of their own."""
        return ThreadPoolExecutor(self._decoders, thread_name_prefix="cut") if self._decoders else nullcontext()

    def _pieces(self, recording: _Recording) -> Iterable[Piece]:
        """The pieces of a recording: made by a cutter's thread, else one after the other as they are asked for."""
        pieces = self._cut(recording)
        is_long = (recording.item.duration or 0.0) > self.batch_seconds
        return list(pieces) if self._decoders and not is_long else pieces

    def _cut(self, recording: _Recording) -> Iterator[Piece]:
        """The pieces, as far as the recording could be read; `audio.fault` says what went wrong."""
        try:
            segments = self._given.of(recording.item) if self._given is not None else None
            yield from cut(recording.audio, self._how, segments)
        except Exception as error:  # noqa: BLE001 - one recording's trouble must not touch the others
            recording.audio.fault = recording.audio.fault or error

    def _result(self, recording: _Recording) -> Result:
        found = recording.found
        fault = recording.audio.fault or next((each for _, each in found if isinstance(each, Exception)), None)
        if fault is not None:
            return fault
        fields = stitched(
            ((piece, each) for piece, each in found if isinstance(each, Transcript)),
            with_segments=self._parameters["segments"] or recording.audio.duration > self._how.longest_s,
            with_words=self._words and self._backend.has_words,
        )
        prefix = "" if self._field == "text" else f"{self._field}_"
        text = {self._field: fields.pop("text")}
        beside = {f"{prefix}{name}": value for name, value in fields.items()}
        # What tells of the text that was there before must not stand beside the new one.
        before = recording.item.fields() if _has(recording.item, self._field) else {}
        emptied: dict[str, Any] = {name: [] for name in (f"{prefix}{each}" for each in _BESIDE) if name in before}
        return {**text, **emptied, **beside}

    def close(self) -> None:
        """Free the model, and tell how much of what was computed was audio."""
        padding = self._batcher.padding
        if padding.batches:
            log.info(
                "%d pieces in %d batches; %.1f %% of the audio that was computed was real.",
                padding.pieces,
                padding.batches,
                100 * padding.efficiency,
            )
        self._backend.close()


def stitched(found: Iterable[tuple[Piece, Transcript]], with_segments: bool, with_words: bool) -> dict[str, Any]:
    """The fields of a recording: its pieces' texts in order, without loops, with times from the recording's start."""
    texts: list[str] = []
    segments: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    flags: list[str] = []
    for piece, transcript in found:
        checked = loops.check(transcript.text.strip(), piece.duration)
        flags += [flag for flag in (checked.flag, transcript.flagged) if flag is not None]
        text = " ".join(checked.text.split())
        if text:
            texts.append(text)
            segments.append({"start": round(piece.start, 3), "end": round(piece.end, 3), "text": text})
        said = transcript.words or []
        for place in loops.kept_words(transcript.text.strip(), [word.word for word in said], checked):
            word = said[place]
            start, end = round(piece.start + word.start, 3), round(piece.start + word.end, 3)
            words.append({"start": start, "end": end, "word": word.word})
    fields: dict[str, Any] = {"text": " ".join(texts)}
    if with_segments:
        fields["segments"] = segments
    if with_words:
        fields["words"] = words
    if flags:
        fields["flags"] = sorted(set(flags))
    return fields


def _given(parameters: Parameters) -> Optional[GivenSegments]:
    """The segments that the run was given. UsageError where the file has changed since."""
    if not parameters["vad_segments"]:
        return None
    path = Path(parameters["vad_segments"])
    known = parameters.get("vad_segments_version")
    if known is not None and segments_version(path) != known:
        raise UsageError(
            f"The segments {path} are not those that this run was begun with: they changed since. Give the command "
            "again: with other segments it is another run; or bring the earlier file back, and this one goes on."
        )
    return GivenSegments(path)


def _has(item: Item, field: str) -> bool:
    return f'"{field}"'.encode() in item.row and isinstance(item.fields().get(field), str)


def _die(error: Exception) -> NoReturn:
    """End the process: only a new one has a GPU again. Its supervisor tries what was in flight one by one."""
    log.error("%s", error)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(_DIED)
