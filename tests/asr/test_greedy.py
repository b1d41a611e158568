"""Our own greedy loop says what `generate()` of transformers says, whatever rows are beside, and when they end."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch", reason="torch is not in this environment")
pytest.importorskip("transformers", reason="transformers is not in this environment")

import torch
import transformers

from pipelines.asr.backends import greedy
from pipelines.asr.backends.limits import RowLimits

SHAPE = {
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 1024,
}  # fmt: skip
PROMPTS = [7, 30, 1, 12, 30, 25, 3, 19, 44, 2, 5, 9]
LIMITS = [40, 90, 3, 1, 17, 70, 150, 33, 90, 8, 64, 128]


@pytest.fixture(params=greedy.KINDS)
def llm(request):
    """A small decoder with random weights, some of whose texts end."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    config = transformers.AutoConfig.for_model(request.param, **SHAPE, sliding_window=None)
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for weight in made.parameters():
        weight.data *= 3  # texts of a random decoder that is left as it is soon repeat one token
        if weight.ndim == 1:  # biases are 0 and norms 1 in the beginning: as good as not there
            weight.data += 0.3 * torch.randn(weight.shape)
    return made


def padded(llm):
    """Rows of random embeddings of many lengths, padded on the left."""
    longest = max(PROMPTS)
    embedded = torch.zeros(len(PROMPTS), longest, llm.config.hidden_size)
    mask = torch.zeros(len(PROMPTS), longest, dtype=torch.long)
    for row, count in enumerate(PROMPTS):
        embedded[row, longest - count :] = torch.randn(count, llm.config.hidden_size)
        mask[row, longest - count :] = 1
    return embedded, mask


def by_transformers(llm, embedded, mask, limits, ends):
    ids = llm.generate(
        inputs_embeds=embedded, attention_mask=mask,
        generation_config=transformers.GenerationConfig(
            max_new_tokens=max(limits), do_sample=False, eos_token_id=ends, pad_token_id=0, bos_token_id=1
        ),
        stopping_criteria=transformers.StoppingCriteriaList([RowLimits(limits, mask.device)]),
    )  # fmt: skip
    return [greedy.until(ends, row[:limit]) for row, limit in zip(ids.tolist(), limits)]


def an_end(llm, embedded, mask):
    """A token that ends some of the texts, and not all of them, after a while."""
    said = by_transformers(llm, embedded, mask, LIMITS, llm.config.vocab_size + 5)
    places = {}
    for row in said:
        for token in set(row):
            places.setdefault(token, []).append(row.index(token))
    return max(places, key=lambda token: (min(len(places[token]), len(said) - 3), sum(places[token]), token))


def test_it_says_what_generate_says(llm):
    assert greedy.suits(llm)
    embedded, mask = padded(llm)
    ends = an_end(llm, embedded, mask)
    theirs = by_transformers(llm, embedded, mask, LIMITS, ends)
    ended = [len(row) < limit for row, limit in zip(theirs, LIMITS)]
    assert any(ended)
    assert not all(ended)
    assert greedy.generate(llm, embedded, mask, LIMITS, ends) == theirs
    for row, count in enumerate(PROMPTS):
        alone = embedded[row : row + 1, -count:], mask[row : row + 1, -count:], LIMITS[row : row + 1]
        assert greedy.generate(llm, *alone, ends) == [theirs[row]]


@pytest.mark.parametrize("every", [1, 3, 1000])
def test_it_does_not_matter_when_rows_leave(llm, every, monkeypatch):
    """On a GPU it is looked only at times which rows have ended."""
    embedded, mask = padded(llm)
    ends = an_end(llm, embedded, mask)
    expected = greedy.generate(llm, embedded, mask, LIMITS, ends)
    monkeypatch.setattr(greedy, "_look_every", lambda _: every)
    for leaving in (1, 4, 1000):
        monkeypatch.setattr(greedy, "_LEAVING", leaving)
        assert greedy.generate(llm, embedded, mask, LIMITS, ends) == expected
    order = random.Random(0).sample(range(len(PROMPTS)), len(PROMPTS))
    shuffled = greedy.generate(llm, embedded[order], mask[order], [LIMITS[row] for row in order], ends)
    assert shuffled == [expected[row] for row in order]


def test_rows_that_have_ended_are_not_computed(llm):
    embedded, mask = padded(llm)
    computed = []
    made = greedy._decoder(llm)
    step = made.step
    made.step = lambda token, *rest: computed.append(len(token)) or step(token, *rest)
    greedy.generate(llm, embedded, mask, LIMITS, llm.config.vocab_size + 5)
    assert len(computed) == max(LIMITS) - 1
    assert computed[0] == len(LIMITS)
    assert computed[-1] <= 2
    assert sum(computed) < 1.35 * (sum(LIMITS) - len(LIMITS))


def test_others_are_left_to_generate(llm):
    kind = llm.config.model_type
    llm.config.model_type = "nemotron_h"
    assert not greedy.suits(llm)
    llm.config.model_type = kind
    llm.config.sliding_window = 64
    assert not greedy.suits(llm)
    llm.config.sliding_window = None
    llm.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    assert not greedy.suits(llm)


def test_in_half_precision(llm):
    embedded, mask = padded(llm)
    llm = llm.to(torch.bfloat16)
    found = greedy.generate(llm, embedded.bfloat16(), mask, LIMITS, 95)
    assert all(0 < len(row) <= limit or 95 not in row for row, limit in zip(found, LIMITS))
    assert found == by_transformers(llm, embedded.bfloat16(), mask, LIMITS, 95)
