"""Batches: every piece once, within budget; the same losses and gradients however the pieces are put together."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.language import models
from pipelines.lm import batching, several
from tests.core.world import REPOSITORY
from tests.lm import making


def listed(found):
    return [found.of(number) for number in range(found.total)]


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 2000), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 9)))
def test_every_piece_is_in_one_batch_within_the_budget(lengths, tokens, sequences, epoch):
    lengths = np.array(lengths)
    found = batching.batches(lengths, tokens, sequences, None if epoch is None else (1, epoch))
    batches = listed(found)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= tokens
        assert len(batch) <= sequences
        assert lengths[batch[0]] == lengths[batch].max()


def test_another_order_every_epoch_and_the_same_every_time():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    orders = [batching.batches(lengths, 800, 16, (1, epoch)).order.tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


def test_little_is_padded():
    lengths = (np.random.default_rng(0).gamma(1.2, 200, 20_000) + 1).astype(np.int64)
    found = batching.batches(lengths, 1 << 16, 32, (1, 0))
    padded = sum(lengths[found.of(number)].max() * len(found.of(number)) for number in range(found.total))
    assert padded / lengths.sum() < 1.08


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    _, drawn = making.sequences(24)
    return making.corpus(tmp_path_factory.mktemp("corpus"), drawn)


def test_pieces_hold_every_unit_once_and_every_end(corpus):
    chosen = batching.pieces(corpus, np.arange(len(corpus)), 7)
    assert chosen.lengths.sum() == corpus.lengths.sum() + len(corpus)
    assert chosen.lengths.max() <= 8
    for item in range(len(corpus)):
        mine = np.flatnonzero(chosen.item == item)
        stretches = [corpus.sequence(item)[chosen.first[piece] : chosen.last[piece]] for piece in mine]
        assert np.concatenate(stretches).tolist() == corpus.sequence(item).tolist()
        assert chosen.ends[mine].tolist() == [False] * (len(mine) - 1) + [True]


def test_a_stretch_begins_with_what_precedes_it(corpus):
    longest = int(np.argmax(corpus.lengths))
    chosen = batching.pieces(corpus, np.array([longest]), 7)
    batch = batching.collate(corpus, chosen, np.arange(len(chosen.item)))
    sequence = corpus.sequence(longest).tolist()
    assert batch.tokens[0, :7].tolist() == [corpus.vocabulary_size, *sequence[:6]]
    assert batch.tokens[1, :7].tolist() == sequence[6:13]
    assert batch.targets.tolist() == [*sequence, corpus.vocabulary_size]


def gradients(model, corpus, groups):
    """Losses of all pieces, and the gradients of their sum, where the pieces are taken in these groups."""
    model.zero_grad()
    pieces = batching.pieces(corpus, np.arange(len(corpus)), 20)
    total = 0.0
    for group in groups(pieces.lengths):
        nats = model.nats(batching.collate(corpus, pieces, np.asarray(group))).sum()
        nats.backward()
        total += float(nats.detach())
    return total, torch.cat([weight.grad.reshape(-1) for weight in model.parameters()])


SCHEMES = {
    "one padded batch": lambda lengths: [np.arange(len(lengths))],
    "padded, in the manifest's order": lambda lengths: np.array_split(np.arange(len(lengths)), 5),
    "bucketed": lambda lengths: listed(batching.batches(lengths, 80, 6, (3, 1))),
    "by length": lambda lengths: listed(batching.batches(lengths, 100, 100, None)),
}


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_losses_and_gradients_are_those_of_one_by_one(corpus, kind, scheme):
    torch.manual_seed(0)
    model = models.build(making.settings(model=kind, dropout=0.0)).double()
    loss, gradient = gradients(model, corpus, lambda lengths: [[number] for number in range(len(lengths))])
    other, same = gradients(model, corpus, SCHEMES[scheme])
    assert other == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(same, gradient, rtol=1e-9, atol=1e-12)


def test_accumulated_batches_make_the_update_of_one_large_batch(corpus, tmp_path):
    """Three batches of 8 that make one update; and one batch of 24, had the same sequences been in it."""
    common = {"dropout": 0.0, "num_epochs": 1, "max_length": 1000, "batch_tokens": 1 << 20}
    several = making.trainer(corpus, tmp_path / "several", accumulate=3, batch_size=8, **common)
    once = making.trainer(corpus, tmp_path / "once", batch_size=24, **common)
    assert len(several._lengths) <= 24
    for each in (several, once):
        each.run()
        assert each.progress.step == 1
    pairs = zip(several.model.parameters(), once.model.parameters())
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert several.progress.history[0]["train_bits_per_unit"] == pytest.approx(
        once.progress.history[0]["train_bits_per_unit"], rel=1e-6
    )


def test_two_processes_train_as_one(tmp_path):
    _, drawn = making.sequences(60)
    corpus = making.corpus(tmp_path, drawn)
    alone = making.trainer(corpus, tmp_path / "alone", dropout=0.0, num_epochs=2)
    alone.run()
    code = (
        "import sys, json\n"
        "from pipelines.lm import parallel; import torch\n"
        "from tests.lm import making\n"
        "from pipelines.lm.data import Corpus, Source; from pathlib import Path\n"
        "parallel.start(torch.device('cpu'))\n"
        "top = Path(sys.argv[1])\n"
        "corpus = Corpus(Source(top / 'corpus.json', top / 'units', 'speaker', 42, False))\n"
        "one = making.trainer(corpus, top / 'both', dropout=0.0, num_epochs=2)\n"
        "one.run()\n"
        "if parallel.rank() == 0: torch.save(one.model.state_dict(), top / 'both.pt')\n"
        "parallel.end()\n"
        "print(json.dumps(one.progress.history))\n"
    )
    place = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(several.free_port()),
        "PYTHONPATH": str(REPOSITORY),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=180)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    histories = [json.loads(text.splitlines()[-1]) for text in said]
    assert histories[0] == histories[1], "both processes know the same figures"
    for mine, theirs in zip(alone.progress.history, histories[0]):
        assert theirs == pytest.approx(mine, rel=1e-4)
    for name, weight in torch.load(tmp_path / "both.pt").items():
        torch.testing.assert_close(weight, alone.model.state_dict()[name], rtol=1e-3, atol=1e-4)
