"""Segments of speech by the library's door: whatever the blocks, the type of the samples and the threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.core.errors import EnvironmentNotFit
from pipelines.voice import ENGINES, engines, silero_graph
from pipelines.voice import ten as ten_module
from pipelines.voice.segments import Rules, samples_of
from pipelines.voice.speech import listen, speech_segments

RULES = Rules(0.5, 0.35, samples_of(0.1), samples_of(0.1))


def segments(blocks, engine):
    try:
        return speech_segments(blocks, engine, RULES)
    except EnvironmentNotFit as error:
        pytest.skip(str(error))


def in_blocks(samples, size):
    return [samples[at : at + size] for at in range(0, len(samples), size)]


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_and_types_do_not_matter(engine, speech):
    samples = speech[: 16000 * 40 + 77]
    found = segments([samples], engine)
    assert len(found) > 5
    assert all(0 <= start < end <= len(samples) / 16000 for start, end in found)
    assert [edge for pair in found for edge in pair] == sorted(edge for pair in found for edge in pair)
    for size in (1000, 16000, 99_999):
        assert segments(in_blocks(samples, size), engine) == found
    assert segments(in_blocks(samples.astype(np.float32) / 32768, 7777), engine) == found


@pytest.mark.parametrize("engine", ENGINES)
def test_several_threads_at_once(engine, speech):
    parts = in_blocks(speech, 16000 * 7)
    alone = [segments([part], engine) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda part: segments([part], engine), parts)) == alone


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_and_silence(engine):
    assert segments([], engine) == []
    assert segments([np.zeros(16000, np.int16)], engine) == []


def test_an_engine_is_loaded_once(silero):
    assert engines.shared("silero") is engines.shared("silero")
    samples = np.zeros(5000, np.int16)
    assert listen([samples], silero).length == 5000
    assert speech_segments([samples], silero, RULES) == []


def test_the_environment_that_is_to_be_mended_is_named(monkeypatch):
    monkeypatch.setattr(ten_module.importlib.util, "find_spec", lambda _: None)
    for name in ENGINES:
        with pytest.raises(EnvironmentNotFit, match="voxarray env create asr"):
            engines.load(name, environment="asr")
    with pytest.raises(EnvironmentNotFit, match="voxarray env create asr"):
        silero_graph.weights(b"\xff", "asr")
