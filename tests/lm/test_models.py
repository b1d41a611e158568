"""The models: what they remember, what padding does to them (nothing), and their files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.core.errors import UsageError
from pipelines.language import files, models, scoring
from tests.lm.making import settings

KINDS = [{"model": "lstm"}, {"model": "transformer", "max_length": 16}]


@pytest.fixture(params=KINDS, ids=lambda kind: kind["model"])
def model(request):
    torch.manual_seed(3)
    return models.build(settings(**request.param)).double().eval()


def drawn(count, longest=40, seed=0):
    die = np.random.default_rng(seed)
    return [die.integers(0, 12, die.integers(1, longest)).astype(np.uint16) for _ in range(count)]


def by_hand(model, sequence):
    """The log-probability of a sequence by the definition: one prediction at a time, each from its whole context."""
    whole = [model.boundary, *sequence.tolist(), model.boundary]
    total, context = 0.0, model.context
    for place in range(1, len(whole)):
        first = 0
        if context is not None and place > context:
            stride = context // 2
            first = -(-(place - context) // stride) * stride
        hidden, _ = model.step(torch.tensor([whole[first:place]]), None)
        total += float(torch.log_softmax(model.logits(hidden[0, -1]), -1)[whole[place]])
    return total


@torch.inference_mode()
def test_reading_in_steps_is_reading_at_once(model):
    tokens = torch.randint(0, 13, (3, 15))
    whole, _ = model.step(tokens, None)
    state, parts = None, []
    for first, last in ((0, 4), (4, 5), (5, 12), (12, 15)):
        part, state = model.step(tokens[:, first:last], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)
    _, at_five = model.step(tokens[:, :5], None)
    chosen = models.kept(at_five, torch.tensor([2, 0]))
    torch.testing.assert_close(model.step(tokens[[2, 0], 5:], chosen)[0], whole[[2, 0], 5:], rtol=0, atol=1e-12)


@torch.inference_mode()
def test_scores_are_what_the_definition_says(model, monkeypatch):
    monkeypatch.setattr(scoring, "_STRETCH", 7)  # so that states are carried, too
    sequences = drawn(6)
    found = scoring.log_probabilities(model, sequences, batch_tokens=60)
    np.testing.assert_allclose(found, [by_hand(model, sequence) for sequence in sequences], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_scores_do_not_depend_on_the_batch(model, kind):
    model = model.to(kind)
    sequences = drawn(16, longest=90)
    together = scoring.log_probabilities(model, sequences)
    alone = [scoring.log_probabilities(model, [sequence])[0] for sequence in sequences]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 if kind == torch.float32 else 1e-11)
    assert scoring.log_probabilities(model, []).shape == (0,)


def test_probabilities_of_all_short_sequences_sum_to_one(model):
    """Over all sequences of up to 2 units, and all beginnings of 3: the boundary is the one special token there is."""
    short = [[], *([a] for a in range(12)), *([a, b] for a in range(12) for b in range(12))]
    ended = np.exp(scoring.log_probabilities(model, [np.array(each, np.uint16) for each in short])).sum()
    begun = 0.0
    for first in range(12):
        tokens = torch.tensor([[model.boundary, first, second] for second in range(12)])
        logs = torch.log_softmax(model.logits(model.step(tokens, None)[0]), -1)
        begun += float(
            (logs[:, 0, first] + logs[:, 1].diagonal()[:12] + logs[:, 2, :12].logsumexp(-1)).exp().sum().detach()
        )
    assert ended + begun == pytest.approx(1, abs=1e-9)


def test_a_file_holds_a_model_and_says_what_it_is(model, tmp_path):
    units = files.UnitsOf("made", 12, 50.0, raw=False, codebook="/made", codebook_digest="0" * 64)
    kind = "lstm" if model.context is None else "transformer"
    about = files.Description(files.FORMAT, settings(model=kind, max_length=16), units, {"bits_per_unit": 2.5}, 7)
    files.save(tmp_path / files.BEST, model.float(), about)
    trained = files.describe(files.find(str(tmp_path)))
    assert trained.description == about
    loaded = files.load(trained, torch.device("cpu"))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_files_that_are_no_models_are_named(tmp_path):
    with pytest.raises(UsageError, match="There is no trained model"):
        files.find(str(tmp_path / "nowhere"))
    damaged = tmp_path / files.BEST
    for content in (b"", b"\x05", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"):
        damaged.write_bytes(content)
        with pytest.raises(UsageError, match="no model that"):
            files.describe(damaged)
    (tmp_path / "run" / "one").mkdir(parents=True)
    (tmp_path / "run" / "one" / files.BEST).write_bytes(b"")
    with pytest.raises(UsageError, match="several models"):
        files.find(str(tmp_path / "run"))
    (tmp_path / "run" / "leaderboard.json").write_text('{"path":"/best/of/all","rank":1}\n{"path":"/other"}\n')
    assert str(files.find(str(tmp_path / "run"))) == "/best/of/all"
