"""The published models: names as textlesslib has them, and what is told about each."""

from __future__ import annotations

import re

import pytest

from pipelines.units import known, published

TEXTLESS = [
    "hubert-base-ls960-kmeans-50",
    "hubert-base-ls960-kmeans-100",
    "hubert-base-ls960-kmeans-200",
    "hubert-base-ls960-kmeans-500",
    "hubert-base-ls960-layer-9-kmeans-500",
    "hubert-base-ls960-layer-9-kmeans-expresso-2000",
    "mhubert-base-vp_mls_cv_8lang-kmeans-2000",
    "mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000",
    "mhubert-base-25hz-kmeans-500",
]


def test_every_quantizer_of_textlesslib_has_its_encoder_and_layer():
    layers = {name: known.find(name).layer for name in TEXTLESS}
    assert list(layers.values()) == [6, 6, 6, 6, 9, 9, 12, 12, 11]
    for name in TEXTLESS:
        assert known.find(known.find(name).dense).kind == "hubert"
        assert set(TEXTLESS) <= set(known.names("codebook"))


def test_layers_of_one_file_are_stored_once():
    assert known.stored_under("hubert-base-ls960-layer-9") == "hubert-base-ls960"
    assert known.find("hubert-base-ls960-layer-9") == known.find("hubert-base-ls960")
    assert known.layer_of("hubert-base-ls960") == 6
    assert known.layer_of("hubert-base-ls960-layer-9") == 9
    assert known.stored_under("mine") == "mine"
    assert known.layer_of("mine") is None


def test_vocoders_name_their_quantizers():
    vocoders = [known.find(name) for name in known.names("hifigan")]
    assert len(vocoders) == 5
    for vocoder in vocoders:
        assert known.find(vocoder.quantizer).kind == "codebook"
        assert {file.role for file in vocoder.files} >= {"weights", "config"}
    expresso = known.find("mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000-hifigan")
    assert [file.role for file in expresso.files] == ["weights", "config", "speakers", "styles"]
    assert expresso.files[0].name.endswith("_it3_L12_km2000_expresso_generator.pt")


def test_files_are_whole():
    files = [file for name in known.names() for file in known.find(name).files]
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert re.fullmatch(published.BASE + r"/[\w./]+\.(pt|bin|json|txt)", file.url)
        assert "/" not in file.name
    weights = {file.sha256: file.name for file in files if file.role == "weights"}
    assert len(weights) == len({known.find(name).name for name in known.names()})
    for digest, name in weights.items():
        assert known.by_sha256(digest).files[0].name == name


@pytest.mark.parametrize("name", known.names())
def test_what_is_told(name):
    told = known.find(name).instructions()
    assert f"import-checkpoint {known.stored_under(name)}`" in told
    assert "--from FOLDER" in told
    assert "Licence: " in told
    assert all(file.url in told for file in known.find(name).files)


def test_expresso_is_not_for_commerce():
    for name in known.names():
        licence = known.find(name).licence
        assert ("non-commercial" in licence) == ("expresso" in known.find(name).files[0].url)
        assert licence


@pytest.mark.parametrize(
    "name", ["cpc-big-ll6k", "cpc-big-ll6k-kmeans-50", "hubert-base-ls960-kmeans-50-tacotron", "waveglow"]
)
def test_what_is_not_supported_says_so(name):
    assert known.find(name) is None
    assert re.search("CPC|Tacotron", known.unsupported(name))
    assert known.unsupported("hubert-base-ls960") is None
