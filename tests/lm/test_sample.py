"""`sample`: drawn from the model's own distribution, the same for each item in any batch, spoken by `sts`."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch

from pipelines.language import sampling, scoring
from pipelines.language.sampling import How, generate
from pipelines.units.packed import PackedUnits, describe
from tests.lm import making
from tests.lm.sources import write
from tests.lm.test_score import model_in
from tests.units.stage import rows_of

KINDS = [{"model": "lstm"}, {"model": "transformer", "max_length": 8}]
EMPTY, LONG = np.empty(0, np.uint16), How(most=40)


@pytest.fixture(params=KINDS, ids=lambda kind: kind["model"])
def kind(request):
    return request.param


@pytest.fixture
def model(kind, tmp_path):
    return model_in(tmp_path / "model", **kind)


def draw(model, count, how=LONG, prompt=EMPTY, first=0):
    return generate(model, [prompt] * count, range(first, first + count), how)


def test_log_probabilities_are_those_of_scoring(model):
    """Across the transformer's context, too: it samples from what it scores with."""
    samples = draw(model, 40, How(most=30))
    assert {sample.ended for sample in samples} == {True, False}
    for sample in samples:
        if sample.ended:
            assert sample.log_probability == pytest.approx(
                scoring.log_probabilities(model, [sample.units])[0], abs=1e-9
            )


def test_each_item_is_the_same_in_any_batch(model):
    together = draw(model, 20)
    for number in (0, 7, 19):
        (alone,) = draw(model, 1, first=number)
        assert alone.units.tolist() == together[number].units.tolist()
    assert len({tuple(sample.units.tolist()) for sample in together}) == 20


def test_prompts_are_gone_on_from(model):
    """Of prompt and continuation together, the continuation has what the prompt's own predictions leave."""
    prompt = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0], np.uint16)
    for sample in draw(model, 20, prompt=prompt):
        if sample.ended:
            whole = scoring.log_probabilities(model, [np.concatenate([prompt, sample.units])])[0]
            assert whole - sample.log_probability == pytest.approx(of_prompt(model, prompt), abs=1e-9)


def of_prompt(model, prompt):
    """The log-probability of a beginning: of the whole without that of its end."""
    logits = sampling._Reader(model, torch.tensor([[model.boundary, *prompt.tolist()]])).logits()
    end = float(torch.log_softmax(logits[0].detach(), -1)[model.boundary])
    return scoring.log_probabilities(model, [prompt])[0] - end


def test_the_first_unit_comes_as_often_as_the_model_says(model):
    logits = model.logits(model.step(torch.tensor([[model.boundary]]), None)[0][0, 0])
    expected = torch.softmax(logits[:-1], -1).detach().numpy()
    counts = collections.Counter(int(sample.units[0]) for sample in draw(model, 2000, How(most=1)))
    found = np.array([counts[unit] for unit in range(12)]) / 2000
    np.testing.assert_allclose(found, expected, atol=4.5 * np.sqrt(0.25 / 2000))


def test_temperature_top_k_top_p_and_the_least(model):
    logits = model.logits(model.step(torch.tensor([[model.boundary]]), None)[0][0, 0])[:-1]
    weights = torch.softmax(logits, -1)
    order = weights.argsort(descending=True).tolist()

    def firsts(**how):
        return {int(sample.units[0]) for sample in draw(model, 300, How(most=1, **how))}

    assert firsts(temperature=0) == {order[0]}
    assert firsts(top_k=1) == {order[0]}
    assert firsts(top_k=3) <= set(order[:3])
    nucleus = int((weights.sort(descending=True).values.cumsum(0) < 0.6).sum()) + 1
    assert firsts(top_p=0.6) <= set(order[:nucleus])
    assert firsts(top_p=1e-6) == {order[0]}
    assert firsts(temperature=1e-5) == {order[0]}
    for sample in draw(model, 50, How(least=10, most=15)):
        assert 10 <= len(sample.units) <= 15
        assert sample.units.max() < 12, "the boundary is never drawn as a unit"


def test_a_draw_is_exact_at_the_edges():
    logits = torch.log(torch.tensor([[0.25, 0.25, 0.0, 0.5, 0.0]], dtype=torch.float64))
    for die, unit in ((0.0, 0), (0.2499, 0), (0.25, 1), (0.4999, 1), (0.5, 3), (1 - 2**-53, 3)):
        chosen, worth = sampling._draw(logits, torch.tensor([die], dtype=torch.float64), How(least=0), 0)
        assert int(chosen) == unit
        assert float(worth) == pytest.approx(float(logits[0, unit]))


def sample(stage, model, name, *options):
    status, said = stage.give("sample", model, name, *options)
    assert status == 0, said
    return rows_of(stage.home / "metadata" / f"{name}.json"), stage.home / "output" / name / "units"


def test_packed_units_and_their_manifest(stage, kind):
    model_in(stage.root / "model", **kind)
    rows, folder = sample(stage, stage.root / "model", "said", "--items", 12, "--max-units", 20)
    packed = PackedUnits(folder)
    assert rows == rows_of(folder / "manifest.json")
    assert len(rows) == len(packed) == 12
    for number, row in enumerate(rows):
        assert row["audio_filepath"] == str(stage.home / "output" / "said" / f"{number:08d}.wav")
        assert row["units_filepath"] == str(folder)
        units = packed.units(row["units_row"])
        assert len(units) == row["num_units"] == round(row["duration"] * 50)
    assert (packed.description.codebook, packed.description.codebook_digest) == ("/made", "0" * 64)
    status, said = stage.give("score", stage.home / "metadata" / "said.json", stage.root / "model", "--field", "again")
    assert status == 0, said


def test_the_same_items_however_the_work_is_cut(stage, kind):
    model_in(stage.root / "model", **kind)
    units = []
    for name, tasks in (("one", 1), ("five", 5)):
        _, folder = sample(stage, stage.root / "model", name, "--items", 23, "--max-units", 15, "--tasks", tasks)
        units.append((folder / "units-00000.npy").read_bytes())
    assert units[0] == units[1]
    _, folder = sample(stage, stage.root / "model", "other", "--items", 23, "--max-units", 15, "--seed", 1)
    assert (folder / "units-00000.npy").read_bytes() != units[0]


def test_durations_that_nobody_has_learnt(stage):
    model_in(stage.root / "plain")
    rows, folder = sample(stage, stage.root / "plain", "slow", "--items", 3, "--frames-per-unit", 2)
    packed = PackedUnits(folder)
    assert packed.description.deduplicated
    assert packed.frames(0).tolist() == np.repeat(packed.units(0), 2).tolist()
    assert rows[0]["duration"] == 2 * rows[0]["num_units"] / 50
    model_in(stage.root / "raw", raw=True)
    _, folder = sample(stage, stage.root / "raw", "frames", "--items", 3)
    assert not describe(folder).deduplicated
    status, said = stage.give("sample", stage.root / "raw", "x", "--frames-per-unit", 2)
    assert status == 2 and "the timing is in what it says" in said


def test_prompts_of_a_manifest(stage):
    _, drawn = making.sequences(6)
    prompts, _ = write(stage.root / "data", drawn, 12)
    model_in(stage.root / "model")
    words = ["--prompts", prompts, "--prompt-units", 4, "--items", 3, "--max-units", 10]
    rows, folder = sample(stage, stage.root / "model", "prompted", *words)
    packed = PackedUnits(folder)
    assert len(rows) == 18
    for number, row in enumerate(rows):
        prompt = drawn[number // 3][:4].tolist()
        assert row["prompt_num_units"] == len(prompt)
        assert packed.units(row["units_row"])[: len(prompt)].tolist() == prompt
        assert row["prompt_filepath"] == rows_of(prompts)[number // 3]["audio_filepath"]


def test_prompts_of_another_codebook_are_refused(stage):
    _, drawn = making.sequences(2)
    prompts, folder = write(stage.root / "data", drawn, 12)
    described = folder / "units.json"
    described.write_text(described.read_text().replace("0" * 64, "1" * 64))
    model_in(stage.root / "model")
    status, said = stage.give("sample", stage.root / "model", "x", "--prompts", prompts, "--items", 1)
    assert status == 1, said
    assert "are of the codebook made (11111111), and not of made (00000000)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a/b"], "must be one folder's name"),
        (["x", "--items", "0"], "--items is 0"),
        (["x", "--top-p", "0"], "--top-p is 0"),
        (["x", "--min-units", "9", "--max-units", "8"], "--min-units is 9, and must be from 1 to 8"),
        (["x", "--prompt-units", "3"], "there is no --prompts"),
        (["x", "--prompts", "/nowhere.json"], "no such manifest"),
        (["taken"], "There is a manifest"),
    ],
)
def test_faults_of_the_command(stage, words, said):
    model_in(stage.root / "model")
    (stage.home / "metadata").mkdir()
    (stage.home / "metadata" / "taken.json").write_text("{}\n")
    status, told = stage.give("sample", stage.root / "model", *words)
    assert status == 2
    assert said in told


def test_a_name_is_of_one_command(stage):
    model_in(stage.root / "model")
    sample(stage, stage.root / "model", "mine", "--items", 3)
    status, said = stage.give("sample", stage.root / "model", "mine", "--items", 3)
    assert status == 0, said
    status, said = stage.give("sample", stage.root / "model", "mine", "--items", 4)
    assert status == 2
    assert "items 3, now 4" in said
