"""The native encoder and vocoder give what fairseq gives, and the reference backend is fairseq, loaded strictly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
import torch

from pipelines.core.errors import UsageError
from pipelines.core.paths import repository
from pipelines.units import encoder, importing, models, originals, synthesis
from pipelines.units.hubert import Hubert
from pipelines.units.models import ModelInfo, Source
from pipelines.units.reference import ReferenceEncoder, fit
from pipelines.units.reference_models import _fit_to_schema
from tests import corpus
from tests.units import made as small
from tests.units.fairseq_reference import (
    LAYER,
    SHORT,
    VARIANTS,
    import_variant,
    made,
    parameters,
    reference_python,
    run,
    waves,
)

VOICES = {
    "plain": {"speakers": (), "styles": ()},
    "speakers": {"styles": ()},
    "both": {},
    "predictor": {"styles": (), "predictor": True},
}
SPOILT = "spoilt.pt"


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of models of their own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("models")
        patch.setenv(models.VARIABLE, str(folder))
        patch.setenv("VOXARRAY_DEVICE", "cpu")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield folder
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def imported() -> None:
    """The checkpoints that fairseq's trainer wrote, through the command."""
    for variant in VARIANTS:
        import_variant(variant)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Vocoders in the true format, imported."""
    root = tmp_path_factory.mktemp("voices")
    folders = {}
    for name, options in VOICES.items():
        folders[name] = small.codehifigan(root / name, **options)
        for file in folders[name].iterdir():  # under names of their own in one folder, as the published ones are
            (root / f"{name}-{file.name}").symlink_to(file)
        given = [f for what in ("speakers", "styles") if options.get(what, True)
                 for f in (f"--{what}", str(root / f"{name}-{what}.txt"))]  # fmt: skip
        files = [str(root / f"{name}-{file}") for file in ("generator.pt", "config.json")]
        assert importing.main(["hifigan", *files, *given, "--name", f"voice-{name}"]) == 0
    return folders


def voice(name: str) -> dict[str, Any]:
    has = VOICES[name]
    return {
        "vocoder": f"voice-{name}",
        "speaker": 1 if has.get("speakers", True) else None,
        "style": 1 if has.get("styles", True) else None,
    }


@pytest.fixture(scope="module")
def units() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, 70).astype(np.uint16)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the other tests of units are made of, and one with a weight too few."""
    folder = tmp_path_factory.mktemp("checkpoints")
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("usual.pt", {}), ("batch_norm.pt", {"batch_norm": True}), ("slow.pt", {"hop": 640}),
        ("normalize.pt", {"normalize": True}), ("first.pt", {"layer_norm_first": True}),
        ("layer_norm.pt", {"extractor": "layer_norm"}), ("optimizer.pt", {"optimizer": True}),
        ("legacy.pt", {"legacy": True}),
        (SPOILT, {"changes": lambda state: state["model"].pop("encoder.layers.1.fc1.weight")}),
    ]  # fmt: skip
    for name, options in wanted:
        small.fairseq_hubert(folder / name, **options)
    return [folder / name for name, _ in wanted]


@pytest.fixture(scope="module")
def reference(
    imported: None, voices: dict[str, Path], units: np.ndarray, checkpoints: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:  # fmt: skip
    """What the reference backend makes of all of them, in one process of its environment."""
    folder = tmp_path_factory.mktemp("reference")
    short = corpus.write_wave(folder / "short.wav", np.full(SHORT, 1000, np.int16))
    np.save(folder / "units.npy", units)
    job = {
        "encode": {variant: parameters(variant, "textless") for variant in VARIANTS},
        "waves": {
            variant: {**{name: str(path) for name, path in waves(variant).items()}, "short": str(short)}
            for variant in VARIANTS
        },
        "checkpoints": list(map(str, checkpoints)),
        "units": str(folder / "units.npy"),
        "speak": {name: voice(name) for name in VOICES},
        "plain": {name: str(path) for name, path in voices.items() if VOICES[name].get("styles") == ()},
    }
    (folder / "job.json").write_text(json.dumps(job))
    program = repository() / "tests" / "units" / "fairseq_backend.py"
    root = next(iter(voices.values())).parent
    for file in (*made().folder.glob("*.pt"), *made().folder.glob("*.bin")):
        (root / file.name).symlink_to(file)
    run(reference_python(), program, folder / "job.json", folder / "out.npz", **{originals.VARIABLE: str(root)})
    return np.load(folder / "out.npz")


# -- encoders


@pytest.mark.parametrize("variant", VARIANTS)
def test_native_features_are_those_of_fairseq(variant: str, imported: None) -> None:
    model = Hubert.load(models.describe(variant, "hubert"), LAYER)
    worst = 0.0
    for name, path in waves(variant).items():
        if name == "long":
            continue
        wave = torch.from_numpy(corpus.read_wave(path).astype(np.float32) / 32768)
        theirs = made().found(variant, "features", name)
        ours = model(wave[None], None)[0].numpy()
        assert ours.shape == theirs.shape
        worst = max(worst, float(np.abs(ours - theirs).max()))
    assert worst < 1e-4, "of features with a deviation of about 1"


@pytest.mark.parametrize("variant", VARIANTS)
def test_native_units_are_those_of_fairseq(variant: str, imported: None) -> None:
    """Recordings of seconds, and one of 100 s with a tail too short for a frame."""
    coder = encoder.load(parameters(variant))
    ours, theirs = [], []
    for name, path in waves(variant).items():
        wave = corpus.read_wave(path).astype(np.float32) / 32768
        ours.append(coder.encode([wave])[0])
        theirs.append(made().found(variant, "units", name))
        assert len(ours[-1]) == len(theirs[-1]), name
    different = np.concatenate(ours) != np.concatenate(theirs)
    assert len(np.unique(np.concatenate(theirs))) > 200, "units that say something"
    assert different.mean() < 0.001


@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_backend_is_fairseq(variant: str, reference: Any) -> None:
    """Bit for bit, in several threads; and a recording too short for a frame is padded to one."""
    for name in waves(variant):
        assert np.array_equal(reference[f"units/{variant}/{name}"], made().found(variant, "units", name)), name
    assert list(reference[f"shape/{variant}"]) == [640 if variant == "slow" else 320, 500]
    wave = np.full(SHORT, 1000, np.float32) / 32768
    ours = encoder.load(parameters(variant)).encode([wave])[0]
    assert len(ours) == 1
    assert np.array_equal(reference[f"units/{variant}/short"], ours)


def test_checkpoints_of_the_tests_are_true(reference: Any, checkpoints: list[Path]) -> None:
    """Those made without fairseq: every key meets fairseq's model, and one that lacks a weight is refused."""
    faults = json.loads(str(reference["faults"]))
    assert list(faults) == [str(path) for path in checkpoints if path.name == SPOILT]
    assert "encoder.layers.1.fc1.weight" in next(iter(faults.values()))
    hops = {path.name: list(reference[f"hop/{path}"]) for path in checkpoints if path.name != SPOILT}
    assert hops["usual.pt"] == [320, 400, 0]
    assert hops["slow.pt"] == [640, 720, 0]
    assert hops["normalize.pt"] == [320, 400, 1]


def test_loading_in_part_gives_other_units() -> None:
    """strict=False, with a fairseq that knows no BatchNorm: wrong units, and others in each process."""
    if made().report["knows_batch_norm"]:
        pytest.skip("the fairseq that is here knows BatchNorm: strict=False has nothing to leave out")
    loose = made().report["loose"]
    assert min(loose["wrong"]) > 0.4
    assert loose["unlike"] > 0.4


# -- vocoders


@pytest.mark.parametrize("name", VOICES)
def test_native_voice_is_that_of_the_reference(name: str, reference: Any, units: np.ndarray) -> None:
    ours = synthesis.load_synthesiser(voice(name)).speak([units])[0]
    theirs = reference[f"speech/{name}"]
    assert ours.shape == theirs.shape == (len(units) * 320,)
    assert 0.01 < np.abs(theirs).max() < 1
    assert np.abs(ours - theirs).max() < 1e-5
    if f"plain/{name}" in reference:
        assert np.array_equal(theirs, reference[f"plain/{name}"]), "the reference is fairseq's, bit for bit"


# -- what needs no fairseq


def info(path: Path, form: str = "fairseq", **changes: Any) -> ModelInfo:
    import hashlib

    data = path.read_bytes()
    source = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "format": form}
    return ModelInfo("m", "hubert", path.parent / "m", "", {}, None, Source(**{**source, **changes}))


def test_original_is_found_wherever_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(originals.VARIABLE, str(tmp_path / "textless"))
    here = tmp_path / "model.pt"
    here.write_bytes(b"weights")
    recorded = info(here, file=str(here))
    assert originals.find(recorded, ["fairseq"]) == here
    (tmp_path / "textless").mkdir()
    shutil.move(here, tmp_path / "textless" / "model.pt")
    assert originals.find(recorded, ["fairseq"]) == tmp_path / "textless" / "model.pt"


def test_changed_original_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(originals.VARIABLE, str(tmp_path))
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    recorded = info(file, file=str(file))
    file.write_bytes(b"weighty")
    with pytest.raises(UsageError, match=r"has it unchanged.*TEXTLESS_CHECKPOINT_ROOT=FOLDER.*--backend native"):
        originals.find(recorded, ["fairseq"])


@pytest.mark.parametrize("form", ["transformers", "fitted"])
def test_models_that_fairseq_cannot_read(form: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(UsageError, match="--backend native"):
        originals.find(info(tmp_path / "x", form), ["fairseq"])


def test_no_reference_for_log_mel() -> None:
    with pytest.raises(UsageError, match="log-mel"):
        ReferenceEncoder.load({"dense_model": None, "units": "logmel-kmeans-100"})


class Field:
    def __init__(self, kind: object) -> None:
        self.type = kind


def test_older_schema_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label rate of 50.0 where the schema says int; a field that came later."""
    from pipelines.units import reference_models

    monkeypatch.setattr(reference_models, "_schema", lambda _: {"label_rate": Field(int), "layers": Field(int)})
    part = {"_name": "hubert", "label_rate": 50.0, "layers": 12, "conv_pos_batch_norm": True}
    _fit_to_schema(part)
    assert part == {"_name": "hubert", "label_rate": 50, "layers": 12}
    assert isinstance(part["label_rate"], int)


@pytest.mark.parametrize(
    ("capability", "kind"), [((8, 6), "cuda"), ((8, 9), "cuda"), ((9, 0), "cpu"), ((6, 0), "cpu")]
)
def test_gpu_younger_than_torch(capability: tuple, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_80", "sm_86"])
    assert fit(torch.device("cuda")).type == kind
