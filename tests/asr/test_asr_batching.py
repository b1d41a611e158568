"""Batches: every piece once, nothing too large, little padding, and trouble that stays where it belongs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.asr.batching import Batcher, DeviceLostError, Division, Padding, divided, is_out_of_memory
from pipelines.asr.sizes import Size, file_for
from pipelines.audio import RATE
from pipelines.core.errors import EnvironmentNotFit, ItemError

property_test = settings(max_examples=200)


def pieces_of(seconds):
    """Pieces of so many seconds, each known by its first sample; backed by almost no memory."""
    return [np.full(max(1, round(length * RATE)), number, np.float32) for number, length in enumerate(seconds)]


def log_normal(hours, seed=0):
    """Lengths as speech has them: median 5 s, at most 40 s."""
    random = np.random.default_rng(seed)
    lengths = random.lognormal(np.log(5), 0.8, int(hours * 700))
    return lengths[(lengths > 0.3) & (lengths <= 40)]


class Model:
    """Says which piece it heard; fails as it is told to."""

    def __init__(self, holds_s=1e9, poisoned=(), error=ValueError):
        self.holds_s, self.poisoned, self.error = holds_s, set(poisoned), error
        self.batches = []

    def __call__(self, batch):
        lengths = [len(piece) for piece in batch]
        self.batches.append(lengths)
        if max(lengths) * len(lengths) / RATE > self.holds_s:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        names = [int(piece[0]) for piece in batch]
        if self.poisoned & set(names):
            raise self.error("a piece is poisoned")
        return [f"{name} {length}" for name, length in zip(names, lengths)]


def said(pieces):
    return [f"{number} {len(piece)}" for number, piece in enumerate(pieces)]


@property_test
@given(
    st.lists(st.floats(0.01, 3.0), max_size=40),
    st.floats(0.5, 20.0),
    st.integers(1, 12),
    st.floats(0, 8),
)
def test_batches_hold_what_they_may_and_cost_the_least(seconds, most_s, most_pieces, overhead):
    lengths = sorted((round(length * RATE) for length in seconds), reverse=True)
    counts = divided(lengths, Division(most_s, most_pieces, overhead))
    assert sum(counts) == len(lengths)
    at = cost = 0
    for count in counts:
        assert 1 <= count <= most_pieces
        assert count == 1 or lengths[at] * count <= most_s * RATE
        cost += lengths[at] * (count + overhead)
        at += count
    best = [0.0]
    for last in range(1, len(lengths) + 1):
        firsts = [
            first
            for first in range(last)
            if last - first == 1 or (last - first <= most_pieces and lengths[first] * (last - first) <= most_s * RATE)
        ]
        best.append(min(best[first] + lengths[first] * (last - first + overhead) for first in firsts))
    assert cost == pytest.approx(best[-1])


@pytest.mark.parametrize(("hours", "batch_s"), [(4, 240), (4, 480), (4, 960), (4, 1920), (8, 480)])
def test_little_of_what_is_computed_is_padding(hours, batch_s):
    seconds = log_normal(hours)
    lengths = sorted((round(length * RATE) for length in seconds), reverse=True)
    counts = divided(lengths, Division(batch_s))
    starts = np.cumsum([0, *counts[:-1]])
    computed = sum(lengths[start] * count for start, count in zip(starts, counts))
    assert sum(lengths) / computed >= 0.97
    in_order = [seconds[at : at + 16] for at in range(0, len(seconds), 16)]
    assert sum(max(batch) * len(batch) for batch in in_order) / seconds.sum() > 2


@pytest.mark.parametrize("batch_s", [480, 960, 1920])
def test_an_encoder_pads_less_than_the_batches_of_its_language_model(batch_s):
    lengths = sorted((round(length * RATE) for length in log_normal(4)), reverse=True)
    whole, encoder, at = Padding(), Padding(), 0
    for count in divided(lengths, Division(batch_s, overhead=4.0)):
        batch = np.random.default_rng(at).permutation(lengths[at : at + count]).tolist()
        whole.add(batch)
        encoder.add(batch, 1.0)
        at += count
    assert encoder.real == pytest.approx(whole.real)
    assert encoder.efficiency >= 0.97 > whole.efficiency


def test_every_piece_has_its_result_in_order():
    pieces = pieces_of(log_normal(0.2))
    model = Model()
    batcher = Batcher(model, Size(120.0), most_pieces=16)
    assert batcher.run(pieces) == said(pieces)
    assert batcher.run([]) == []
    assert all(len(batch) <= 16 and max(batch) * len(batch) <= 120 * RATE for batch in model.batches)
    assert [max(batch) for batch in model.batches] == sorted((max(batch) for batch in model.batches), reverse=True)
    assert batcher.padding.real == pytest.approx(sum(map(len, pieces)) / RATE)
    assert batcher.padding.efficiency > 0.85
    assert batcher.padding.pieces == len(pieces)


def test_from_several_threads():
    pieces = pieces_of(log_normal(0.1))
    batcher = Batcher(Model(), Size(60.0))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(batcher.run, [pieces] * 8)) == [said(pieces)] * 8
    assert batcher.padding.pieces == 8 * len(pieces)


@property_test
@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=20), st.sets(st.integers(0, 19), max_size=3))
def test_a_poisoned_piece_costs_only_itself(seconds, poisoned):
    pieces = pieces_of(seconds)
    found = Batcher(Model(poisoned=poisoned), Size(8.0)).run(pieces)
    for number, (result, expected) in enumerate(zip(found, said(pieces))):
        if number in poisoned:
            assert isinstance(result, ValueError)
            assert result.__traceback__ is None
        else:
            assert result == expected


def test_one_poisoned_piece_of_many_costs_few_calls():
    pieces = pieces_of([1.0] * 128)
    model = Model(poisoned=[77])
    found = Batcher(model, Size(128.0)).run(pieces)
    assert [number for number, result in enumerate(found) if isinstance(result, Exception)] == [77]
    assert len(model.batches) == 15  # the whole, and two halves at each of seven levels


def test_a_model_that_loses_count_is_not_believed():
    found = Batcher(lambda _: ["one"], Size(10.0)).run(pieces_of([1.0, 1.0]))
    assert found == ["one", "one"]


def test_machine_faults_are_nobodys():
    with pytest.raises(EnvironmentNotFit):
        Batcher(Model(poisoned=[0], error=EnvironmentNotFit), Size(10.0)).run(pieces_of([1.0, 1.0]))

    def lost(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(DeviceLostError, match="new process"):
        Batcher(lost, Size(10.0)).run(pieces_of([1.0, 1.0]))


# -- memory


def test_batches_are_halved_until_they_fit_and_stay_so(tmp_path):
    pieces = pieces_of([2.0] * 100)
    size = Size(100.0, tmp_path / "size.json")
    model = Model(holds_s=30.0)
    batcher = Batcher(model, size)
    assert batcher.run(pieces) == said(pieces)
    tried = [sum(batch) / RATE for batch in model.batches]
    assert tried[:2] == [100.0, 50.0]
    assert max(tried[2:]) <= 25.0
    assert size.now == 25.0
    assert size.failed_s == 50.0
    model.batches.clear()
    again = Batcher(model, Size(100.0, tmp_path / "size.json"))
    assert again.run(pieces) == said(pieces)
    assert max(sum(batch) for batch in model.batches) <= 25 * RATE  # the next task begins there
    assert Size(200.0, tmp_path / "size.json").now == 200.0  # another beginning: what was found does not count


def test_down_to_one_piece_and_no_further():
    pieces = pieces_of([3.0, 1.0, 1.0, 1.0])
    found = Batcher(Model(holds_s=1.5), Size(100.0)).run(pieces)
    assert isinstance(found[0], ItemError)
    assert "a piece of 3.0 s" in str(found[0])
    assert found[1:] == said(pieces)[1:]


def test_batches_grow_carefully():
    filled = [0.3]
    size = Size(100.0, filled=lambda: filled[0])
    for _ in range(4):
        size.fitted(20.0)  # not full: says nothing
    assert size.now == 100.0
    for _ in range(4):
        size.fitted(95.0)
    assert size.now == 125.0
    filled[0] = 0.7  # a quarter more would fill too much
    for _ in range(8):
        size.fitted(125.0)
    assert size.now == 125.0
    filled[0] = 0.1
    size.failed(120.0)
    for _ in range(80):
        size.fitted(size.now)
    assert size.now == pytest.approx(108.0)  # never near what failed
    size = Size(100.0, filled=lambda: 0.0)
    for _ in range(200):
        size.fitted(size.now)
    assert size.now == 800.0
    unknown = Size(100.0)
    for _ in range(20):
        unknown.fitted(100.0)
    assert unknown.now == 100.0


@property_test
@given(st.floats(5.0, 300.0), st.lists(st.booleans(), max_size=30))
def test_nothing_that_failed_is_tried_again(holds_s, fills):
    size = Size(100.0, filled=lambda: 0.2)
    failed = []
    for full in [True] * 40 + fills * 3:
        tried = size.now if full else size.now / 3
        assert all(tried < before for before in failed)
        if tried > holds_s:
            size.failed(tried)
            failed.append(tried)
        else:
            size.fitted(tried)
    assert size.now <= 800.0


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"begun_s":100,"fits_s":-5}', b'{"begun_s":100,"fits_s":1e9}', b"[]"]
)
def test_a_file_that_makes_no_sense_is_forgotten(tmp_path, content):
    path = tmp_path / "size.json"
    path.write_bytes(content)
    size = Size(100.0, path)
    assert size.now == 100.0
    size.failed(100.0)
    assert json.loads(path.read_text())["fits_s"] == 50.0


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    size = Size(100.0, tmp_path / "file" / "size.json")
    size.failed(80.0)
    assert size.now == 40.0


def test_names_of_files(tmp_path):
    one = file_for(tmp_path, "salm", "nvidia/canary-qwen-2.5b", "bf16", "NVIDIA H100 80GB HBM3")
    assert one.parent == tmp_path
    assert one.name == "salm-nvidia_canary-qwen-2.5b-bf16-NVIDIA_H100_80GB_HBM3.json"


def test_what_is_out_of_memory():
    class OutOfMemoryError(RuntimeError):
        pass

    assert is_out_of_memory(OutOfMemoryError("any"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("a size of 3 does not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
