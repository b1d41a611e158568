"""The encoder: fairseq's results, the same for a waveform in any company, at any layer, in either way of computing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.core.errors import UsageError
from pipelines.units import importing, models, products
from pipelines.units.hubert import Hubert
from tests import corpus
from tests.units import made, made_hubert, plain_hubert

LAYERS = 3
VARIANTS = {
    "weight norm": {},
    "batch norm": {"batch_norm": True},
    "layer norm, normalised": {"normalize": True},
    "group norm, normalised": {"normalize": True, "extractor": "default"},
    "norm first": {"normalize": True, "layer_norm_first": True},
    "batch norm, 25 Hz": {"batch_norm": True, "hop": 640},
}
LENGTHS = [400, 401, 719, 720, 16_000, 64_000, 12_123, 1_040, 9_000, 5_000, 399, 25_001]
TOLERANCE = 2e-5


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Two threads that wait for each other on a busy machine take a hundred times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("models")
    patch.setenv(models.VARIABLE, str(root / "models"))
    yield root
    patch.undo()


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda name: name.replace(" ", "-"))
def variant(request, models_folder):
    """A checkpoint, imported: its info, and fairseq's features of a waveform."""
    options = VARIANTS[request.param]
    name = request.param.replace(" ", "-").replace(",", "")
    weights = made.fairseq_hubert(models_folder / f"{name}.pt", layers=LAYERS, **options)
    assert importing.main([str(models_folder / f"{name}.pt"), "--name", name]) == 0
    hop = options.get("hop", 320)

    def expected(waveform, layer):
        return plain_hubert.features(
            weights,
            waveform,
            layer,
            convolutions=made_hubert.convolutions(hop, made.TINY["channels"]),
            heads=made.TINY["heads"],
            normalize=options.get("normalize", False),
            norm_first=options.get("layer_norm_first", False),
        )

    return SimpleNamespace(info=models.describe(name, "hubert"), expected=expected, hop=hop)


def noise(samples, seed=0, level=0.1):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * level


def batch_of(waveforms, padding=0.0):
    lengths = torch.tensor([len(each) for each in waveforms])
    batch = torch.full((len(waveforms), int(lengths.max())), padding)
    for row, each in zip(batch, waveforms):
        row[: len(each)] = each
    return batch, lengths


def load(variant, layer, **options):
    """As `Hubert.load`, with the options of the constructor."""
    from safetensors.torch import load_file

    return Hubert(variant.info.config, load_file(str(variant.info.weights)), layer, **options)


# -- fairseq's results


@pytest.mark.parametrize("layer", [1, LAYERS])
def test_one_waveform_at_a_time(variant, layer):
    encoder = Hubert.load(variant.info, layer)
    for samples in LENGTHS:
        waveform = noise(samples, samples)
        frames = encoder.frames(samples)
        found = encoder(waveform[None])
        assert found.shape == (1, frames, encoder.width)
        if frames:
            expected = variant.expected(waveform, layer)
            assert expected.shape == found[0].shape
            assert (found[0] - expected).abs().max() <= TOLERANCE, samples


def test_speech(variant):
    try:
        files = corpus.speech("en", 4, longest=6.0)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    encoder = Hubert.load(variant.info, 2)
    for path in files:
        waveform = torch.from_numpy(corpus.read_wave(path).astype(np.float32) / 32768)
        assert (encoder(waveform[None])[0] - variant.expected(waveform, 2)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("signal", ["silence", "nearly silent", "loud", "offset", "one click", "constant"])
def test_extreme_signals(variant, signal):
    waveform = {
        "silence": torch.zeros(20_000),
        "nearly silent": noise(20_000, 1, 1e-5),
        "loud": noise(20_000, 1, 1.0).clamp(-1, 1),
        "offset": noise(20_000, 1, 0.01) + 0.5,
        "one click": torch.zeros(20_000).index_fill(0, torch.tensor([9_000]), 1.0),
        "constant": torch.full((20_000,), 0.25),
    }[signal]
    found = Hubert.load(variant.info, 2)(waveform[None])[0]
    assert (found - variant.expected(waveform, 2)).abs().max() <= 1e-4
    assert torch.isfinite(found).all()


def test_sizes(variant):
    encoder = Hubert.load(variant.info, 1)
    assert (encoder.hop, encoder.width, encoder.layer) == (variant.hop, made.TINY["width"], 1)
    assert encoder.shortest == {320: 400, 640: 720}[variant.hop]
    assert encoder.frames(encoder.shortest - 1) == 0
    for samples in [encoder.shortest, encoder.shortest + variant.hop - 1, encoder.shortest + variant.hop, 16_000]:
        assert encoder.frames(samples) == (samples - encoder.shortest) // variant.hop + 1


# -- company


def test_the_same_in_any_company_bit_for_bit(variant):
    encoder = Hubert.load(variant.info, LAYERS)
    waveforms = [noise(length, index) for index, length in enumerate(LENGTHS * 2)]
    alone = [encoder(each[None])[0] for each in waveforms]
    for size in (4, 24):
        for start in range(0, len(waveforms), size):
            group = waveforms[start : start + size]
            found = encoder(*batch_of(group))
            for own, row in zip(alone[start : start + size], found):
                assert torch.equal(row[: len(own)], own)


@pytest.mark.parametrize("packed", [True, False])
def test_the_way_for_gpus_gives_the_same(variant, packed, monkeypatch):
    monkeypatch.setattr(products, "_packing_works", lambda: packed)
    encoder = load(variant, LAYERS, padded=True)
    waveforms = [noise(length, index) for index, length in enumerate(LENGTHS)]
    found = encoder(*batch_of(waveforms))
    for waveform, row in zip(waveforms, found):
        frames = encoder.frames(len(waveform))
        if frames:
            expected = variant.expected(waveform, LAYERS)
            assert (row[:frames] - expected).abs().max() <= 3e-5
            assert (row[:frames] - encoder(waveform[None])[0]).abs().max() <= 3e-5
    assert torch.isfinite(found).all()


def test_the_way_for_gpus_in_small_pieces(variant, monkeypatch):
    monkeypatch.setattr("pipelines.units.extractor.GPU_BLOCK", 40_000)
    monkeypatch.setattr("pipelines.units.extractor.PART", 1_000)
    encoder = load(variant, 1, padded=True)
    for lengths in ([16_000, 9_000, 720, 12_345, 16_000], [60_000, 50_000, 300], [90_000]):
        waveforms = [noise(length, index) for index, length in enumerate(lengths)]
        for waveform, row in zip(waveforms, encoder(*batch_of(waveforms))):
            frames = encoder.frames(len(waveform))
            if frames:
                assert (row[:frames] - variant.expected(waveform, 1)).abs().max() <= 3e-5


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("padding", [7.0, float("nan"), float("inf")])
def test_padding_may_hold_anything(variant, padded, padding):
    encoder = load(variant, 2, padded=padded)
    waveforms = [noise(length, length) for length in (16_000, 3_000, 720)]
    clean, dirty = (encoder(*batch_of(waveforms, value)) for value in (0.0, padding))
    for waveform, one, other in zip(waveforms, clean, dirty):
        frames = encoder.frames(len(waveform))
        assert torch.equal(one[:frames], other[:frames])


def test_nothing_to_encode(variant):
    encoder = Hubert.load(variant.info, 1)
    width = made.TINY["width"]
    assert encoder(torch.zeros(0, 16_000)).shape == (0, encoder.frames(16_000), width)
    assert encoder(torch.zeros(2, 100)).shape == (2, 0, width)
    assert encoder(torch.zeros(2, 1_000), torch.tensor([10, 0])).shape == (2, encoder.frames(1_000), width)


# -- precision and speed


def test_without_packed_products(variant, monkeypatch):
    packed = load(variant, 2)
    assert packed.projection is None or packed.projection.packed
    monkeypatch.setattr(products, "_packing_works", lambda: False)
    plain = load(variant, 2)
    waveform = noise(20_000)
    assert (plain(waveform[None]) - packed(waveform[None])).abs().max() <= TOLERANCE


@pytest.mark.parametrize("padded", [False, True])
def test_bfloat16(variant, padded):
    exact, rough = load(variant, LAYERS), load(variant, LAYERS, dtype=torch.bfloat16, padded=padded)
    waveforms, lengths = batch_of([noise(16_000), noise(9_000, 1)])
    found = rough(waveforms, lengths)
    assert found.dtype == torch.bfloat16
    error = (found[0].float() - exact(waveforms, lengths)[0]).square().mean().sqrt()
    assert error < 0.08


# -- transformers


@pytest.mark.parametrize("options", [
    {},
    {"conv_pos_batch_norm": True},
    {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    {"conv_bias": True, "feat_proj_layer_norm": False},
], ids=["plain", "batch norm", "large", "bias, no norm"])  # fmt: skip
def test_agrees_with_transformers(options, models_folder):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, conv_dim=[32] * 7, **options
    )
    theirs = transformers.HubertModel(config).eval()
    _settle(theirs)
    folder = models_folder / f"hf{len(options)}{'-'.join(options)}"
    theirs.save_pretrained(folder)
    name = f"of-{folder.name}"
    assert importing.main([str(folder), "--name", name]) == 0
    info = models.describe(name, "hubert")
    for samples in (400, 16_000, 50_001):
        waveform = noise(samples, samples)[None]
        given = torch.nn.functional.layer_norm(waveform, (samples,)) if info.config["normalize"] else waveform
        with torch.inference_mode():
            states = theirs(given, output_hidden_states=True).hidden_states
        for layer in (1, 3):
            assert (Hubert.load(info, layer)(waveform) - states[layer]).abs().max() <= TOLERANCE


def _settle(model):
    """Numbers in the norms that tell whether they are used."""
    generator = torch.Generator().manual_seed(1)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            value.data.uniform_(0.5, 2.0, generator=generator)
        elif "norm" in name and value.dtype.is_floating_point:
            value.data.add_(torch.randn(value.shape, generator=generator) * 0.2)


# -- mistakes


def test_layers_that_are_not_there(variant):
    for layer in (0, LAYERS + 1, -1):
        with pytest.raises(UsageError, match=f"layers 1 to {LAYERS}"):
            Hubert.load(variant.info, layer)


def test_layers_above_are_not_read(variant):
    assert len(Hubert.load(variant.info, 1).layers) == 1


def test_damaged_weights(variant, tmp_path):
    import msgspec

    data = variant.info.weights.read_bytes()
    (tmp_path / models.WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="--replace"):
        Hubert.load(msgspec.structs.replace(variant.info, folder=tmp_path), 1)
