"""The loaded recogniser, taking recordings of any length from the engine and giving each its text."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, ContextManager, Iterable, NamedTuple, NoReturn, Optional, Sequence, Union

from pipelines.asr import backends, loops, sizes
from pipelines.asr.backends import Transcript
from pipelines.asr.batching import Batcher, DeviceLostError
from pipelines.asr.cutting import Cutting, Piece, cut
from pipelines.asr.given import GivenSegments
from pipelines.audio.items import Audio
from pipelines.core import paths
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources

log = logging.getLogger(__name__)

_ON_GPU = (4096, 14400.0)
"""Items in a batch of the engine's, and seconds: what padding is made small over, and what a killed process loses."""
_DIED = 70
"""Exit status of a process whose GPU no longer answers (sysexits' EX_SOFTWARE)."""

Result = Union[dict[str, Any], Exception]


class _Recording(NamedTuple):
    """One item's audio, and its pieces."""

    item: Item
    audio: Audio
    pieces: list[Piece]


class AsrProcessor:
    """Transcripts as the engine calls for them. On a GPU, batches take turns while others are decoded and cut."""

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._parameters = parameters
        self._backend = backends.load(parameters["backend"], parameters["model"], parameters["settings"], resources)
        backend = self._backend
        longest = min(backend.longest_s, parameters["longest"] or backend.longest_s)
        self._how = Cutting(longest, vad=parameters["vad"])
        self._given = GivenSegments(Path(parameters["vad_segments"])) if parameters["vad_segments"] else None
        self._words = bool(parameters["words"])
        self._field = str(parameters["field"])
        if self._words and not backend.has_words:
            log.warning("%s gives no times of words; `words` will be missing.", parameters["model"])
        self.batch_items, self.batch_seconds = _ON_GPU if backend.on_gpu else backend.together
        self.concurrency = 2 if backend.on_gpu else min(resources.cpus, max(1, backend.concurrency))
        self._decoders = resources.cpus if backend.on_gpu else 0
        self._turn: ContextManager[Any] = Lock() if backend.on_gpu or backend.concurrency == 1 else nullcontext()
        self._batcher = Batcher(
            lambda pieces: backend.transcribe(pieces, self._words), self._size(), overhead=backend.overhead
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
        audios = [Audio(item) for item in items]
        with self._cutters() as pool:
            cut_all = pool.map if pool is not None else map
            found = cut_all(self._pieces, items, audios)
            recordings = [_Recording(*each) for each in zip(items, audios, found)]
        pieces = [piece for recording in recordings for piece in recording.pieces]
        with self._turn:
            try:
                results = self._batcher.run([piece.samples for piece in pieces])
            except DeviceLostError as error:
                _die(error)
        given = iter(results)
        return [self._result(recording, [next(given) for _ in recording.pieces]) for recording in recordings]

    def _cutters(self) -> ContextManager[Optional[ThreadPoolExecutor]]:
        """Threads that decode and cut, where a GPU waits for them; a CPU's threads have a batch each of their own."""
        return ThreadPoolExecutor(self._decoders, thread_name_prefix="cut") if self._decoders else nullcontext()

    def _pieces(self, item: Item, audio: Audio) -> list[Piece]:
        """The pieces of a recording; none where it could not be read, and `audio.fault` says why."""
        try:
            segments = self._given.of(item) if self._given is not None else None
            return list(cut(audio, self._how, segments))
        except Exception as error:  # noqa: BLE001 - one recording's trouble must not touch the others
            audio.fault = audio.fault or error
            return []

    def _result(self, recording: _Recording, found: Sequence[Union[Transcript, Exception]]) -> Result:
        fault = recording.audio.fault or next((each for each in found if isinstance(each, Exception)), None)
        if fault is not None:
            return fault
        fields = stitched(
            zip(recording.pieces, (each for each in found if isinstance(each, Transcript))),
            with_segments=self._parameters["segments"] or recording.audio.duration > self._how.longest_s,
            with_words=self._words and self._backend.has_words,
        )
        return {self._field: fields.pop("text"), **fields}

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


def _has(item: Item, field: str) -> bool:
    return f'"{field}"'.encode() in item.row and isinstance(item.fields().get(field), str)


def _die(error: Exception) -> NoReturn:
    """End the process: only a new one has a GPU again. Its supervisor tries what was in flight one by one."""
    log.error("%s", error)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(_DIED)
