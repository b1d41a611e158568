"""A source of known entropy is learnt to within 2 % of it."""

from __future__ import annotations

import math

import pytest

from tests.lm import making

RIGHT = {
    "lstm": {"learning_rate": 0.02, "hidden_size": 24, "embedding_dim": 16},
    "transformer": {"learning_rate": 0.01, "hidden_size": 32, "batch_tokens": 4096},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    markov, drawn = making.sequences(3000, ends=0.02)
    return markov, drawn, making.corpus(tmp_path_factory.mktemp("corpus"), drawn, speakers=40)


@pytest.mark.parametrize("kind", RIGHT)
def test_a_markov_source_is_learnt(source, tmp_path, kind):
    markov, drawn, corpus = source
    more = {"batch_tokens": 4096, "max_length": 128, "warmup_steps": 20, "batch_size": 32, "num_epochs": 4}
    training = making.trainer(corpus, tmp_path, model=kind, num_layers=1, dropout=0.0, **{**more, **RIGHT[kind]})
    progress = training.run()
    valid = training._parts.valid.tolist()
    tokens = sum(len(drawn[item]) + 1 for item in valid)
    entropy = sum(markov.bits(drawn[item]) for item in valid) / tokens
    assert entropy * 0.995 < progress.best < entropy * 1.02
    last = progress.history[-1]
    assert last["perplexity"] == pytest.approx(2 ** last["bits_per_unit"])
    seconds = sum(2 * len(drawn[item]) / 50 for item in valid)
    assert last["bits_per_second"] == pytest.approx(last["bits_per_unit"] * tokens / seconds, rel=1e-4)
    by_chance = math.log2(13)
    assert progress.history[0]["train_bits_per_unit"] < by_chance
