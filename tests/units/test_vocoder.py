"""The unit vocoder: as the published architecture computes, whatever the padding, the company and the blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import ItemError, UsageError
from pipelines.units import models
from pipelines.units.hifigan import Shape
from pipelines.units.vocoder import CodeHiFiGan, folded
from tests.units.voices import SMALL, vocoder, vocoder_folder, weights


def plain(state, units, speaker, style):
    """CodeHiFiGAN by the book, one sequence, from weights with weight norm: (frames,) → (frames · hop,)."""
    state = dict(state)
    for name in [key[:-2] for key in state if key.endswith("weight_g")]:
        state[name] = torch._weight_norm(state[name + "_v"], state[name + "_g"], 0)

    def conv(x, name, dilation=1):
        weight = state[name + ".weight"]
        return F.conv1d(
            x, weight, state[name + ".bias"], padding=(weight.shape[2] - 1) * dilation // 2, dilation=dilation
        )

    vectors = [state["dict.weight"][units].T]
    vectors += [
        state[f"{what}.weight"][one][:, None].expand(-1, len(units))
        for what, one in (("spkr", speaker), ("style", style))
    ]
    x = conv(torch.cat(vectors)[None], "conv_pre")
    for stage, (rate, kernel) in enumerate(zip(SMALL["upsample_rates"], SMALL["upsample_kernel_sizes"])):
        x = F.leaky_relu(x, 0.1)
        x = F.conv_transpose1d(x, state[f"ups.{stage}.weight"], state[f"ups.{stage}.bias"], rate, (kernel - rate) // 2)
        total = 0
        for number in range(3):
            y, block = x, f"resblocks.{3 * stage + number}"
            for pair, dilation in enumerate((1, 3, 5)):
                inner = conv(F.leaky_relu(y, 0.1), f"{block}.convs1.{pair}", dilation)
                y = conv(F.leaky_relu(inner, 0.1), f"{block}.convs2.{pair}") + y
            total = total + y
        x = total / 3
    return torch.tanh(conv(F.leaky_relu(x), "conv_post"))[0, 0]


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return vocoder(tmp_path_factory.mktemp("voice"))


def random_units(*shape, seed=0, size=50):
    return torch.randint(0, size, shape, generator=torch.Generator().manual_seed(seed))


def test_it_computes_what_the_published_architecture_does(voice):
    units = random_units(37)
    expected = plain(weights(), units, 2, 1)
    samples = voice(units[None], None, torch.tensor([2]), torch.tensor([1]))[0]
    assert samples.shape == expected.shape == (37 * 320,)
    assert samples.dtype == torch.float32
    assert float(samples.std()) > 0.01, "the test's weights are too weak to tell anything"
    assert float((samples - expected).abs().max()) < 1e-6
    assert float(samples.abs().max()) <= 1


def test_weight_norm_is_folded_at_load(voice):
    state = weights()
    assert any(name.endswith("weight_g") for name in state)
    other = CodeHiFiGan(models.ModelInfo("x", "hifigan", None, "", config(), None, None), state)
    units = random_units(1, 12)
    assert float((other(units) - voice(units)).abs().max()) < 1e-6
    assert not any("weight_g" in name for name in folded(state))


@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_padding_and_company_change_nothing_to_the_last_sample(voice, lengths, seed):
    batch = random_units(len(lengths), max(lengths), seed=seed)
    speaker, style = random_units(len(lengths), seed=seed, size=3), random_units(len(lengths), seed=seed, size=2)
    together = voice(batch, torch.tensor(lengths), speaker, style)
    for row, length in enumerate(lengths):
        alone = voice(batch[row : row + 1, :length], None, speaker[row : row + 1], style[row : row + 1])[0]
        assert float((together[row, : length * 320] - alone).abs().max()) < 1e-5
        assert not together[row, length * 320 :].any()


def test_what_lies_beyond_a_length_may_be_anything(voice):
    units, lengths = random_units(2, 20), torch.tensor([20, 7])
    other = units.clone()
    other[1, 7:] = 9999
    assert torch.equal(voice(units, lengths), voice(other, lengths))


def test_speakers_and_styles_differ_and_the_first_is_the_default(voice):
    units = random_units(1, 20)
    index = torch.tensor
    sounds = [voice(units, None, index([speaker]), index([style])) for speaker in range(3) for style in range(2)]
    assert len({tuple(sound[0, ::100].tolist()) for sound in sounds}) == 6
    assert torch.equal(voice(units), sounds[0])


@pytest.mark.parametrize(
    ("rates", "kernels"), [((5, 4, 4, 2, 2), (11, 8, 8, 4, 4)), ((8, 8, 5), (16, 16, 11)), ((4, 4), (4, 8))]
)
def test_the_context_is_the_receptive_field(rates, kernels, tmp_path):
    changes = {"upsample_rates": list(rates), "upsample_kernel_sizes": list(kernels)}

    def positive(_, tensors):  # so that nothing that reaches a sample can vanish
        for name, value in tensors.items():
            tensors[name] = abs(value) + 1e-3 if value.ndim == 3 else abs(value)

    made = vocoder(tmp_path, spoil=positive, **changes)
    made.generator.double()
    context, hop = made.context, made.hop
    generator = made.generator
    vectors = torch.rand(1, 48, 1, 2 * context + 7, dtype=torch.float64).requires_grad_()
    generator._embedded = lambda *_: vectors[:, :, 0].transpose(1, 2)
    # the gradient of one unit's samples reaches exactly `context` units to each side (tanh is undone: it saturates)
    tanh, torch.tanh = torch.tanh, lambda x: x
    try:
        sound = generator(torch.zeros(1, vectors.shape[3], dtype=torch.int64), None, None, None)
    finally:
        torch.tanh = tanh
    middle = context + 3
    sound[0, middle * hop : (middle + 1) * hop].sum().backward()
    touched = vectors.grad.abs().sum(dim=(0, 1, 2)).nonzero()[:, 0].tolist()
    assert max(middle - touched[0], touched[-1] - middle) == context
    assert made.context == Shape.of(models.describe(str(tmp_path / "voice"), "hifigan")).context


@pytest.mark.parametrize("unit", [50, 1999, -1])
def test_a_unit_beyond_the_vocabulary_is_refused_before_it_is_looked_up(voice, unit):
    units = random_units(1, 20)
    units[0, 7] = unit
    with pytest.raises(ItemError, match=r"voice, which knows 50 units"):
        voice(units)


def test_a_speaker_that_does_not_exist_is_refused(voice):
    with pytest.raises(ItemError, match=r"speaker \[3\] does not exist: voice has 3"):
        voice(random_units(1, 4), None, torch.tensor([3]))


def test_bfloat16_is_near(tmp_path, voice):
    rough = CodeHiFiGan.load(models.describe(str(vocoder_folder(tmp_path)), "hifigan"), dtype=torch.bfloat16)
    units = random_units(1, 30)
    exact = voice(units)
    assert float((rough(units) - exact).norm() / exact.norm()) < 0.05


def config(**changes):
    return {**SMALL, "vocabulary_size": 50, "hop": 320, "speakers": ["a", "b", "c"], "styles": ["d", "e"], **changes}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"f0": True}, "pitch"),
        ({"embedder_params": {"x": 1}}, "speaker vectors"),
        ({"resblock": "2"}, "second kind"),
        ({"sampling_rate": 22050}, "16 kHz"),
        ({"upsample_kernel_sizes": [10, 8, 8, 4, 4]}, "kernel does not fit"),
        ({"resblock_kernel_sizes": [3, 7, 10]}, "even"),
    ],
)
def test_what_it_does_not_do_is_refused_with_the_reason(changes, reason):
    with pytest.raises(UsageError, match=reason):
        Shape.of(models.ModelInfo("odd-one", "hifigan", None, "", config(**changes), None, None))


def test_a_duration_predictor_is_ignored(tmp_path, voice):
    made = vocoder(tmp_path, dur_predictor_params={"encoder_embed_dim": 16})
    units = random_units(1, 9)
    assert torch.equal(made(units), voice(units))


@pytest.mark.parametrize("fault", ["missing", "unknown", "misshapen"])
def test_weights_that_do_not_fit_are_refused(tmp_path, fault):
    def spoil(_, tensors):
        if fault == "missing":
            del tensors["resblocks.4.convs1.2.bias"]
        elif fault == "unknown":
            tensors["resblocks.99.extra"] = tensors["conv_post.bias"]
        else:
            tensors["ups.1.weight"] = tensors["ups.1.weight"][:, :, :5]

    vocoder_folder(tmp_path, spoil=spoil)
    with pytest.raises(UsageError, match=r"do not fit its configuration; among them: (resblocks|ups)"):
        CodeHiFiGan.load(models.describe(str(tmp_path / "voice"), "hifigan"))
