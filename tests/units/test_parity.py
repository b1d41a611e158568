"""`voxarray parity`: both backends in their own environments, and what is said of the difference."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Iterator

import msgspec
import pytest

from pipelines.units import models, originals, parity
from pipelines.units.parity import Compared
from tests.units.fairseq_reference import import_variant, made, reference_python, waves


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(models.VARIABLE, str(tmp_path / "models"))
    monkeypatch.setenv("VOXARRAY_DEVICE", "cpu")
    return tmp_path


def manifest(folder: Path, *recordings: Path) -> Path:
    path = folder / "corpus.json"
    path.write_bytes(b"".join(msgspec.json.encode({"audio_filepath": str(each)}) + b"\n" for each in recordings))
    return path


def run(store: Path, *arguments: str) -> int:
    pythons = ["--native-python", sys.executable, "--reference-python", str(reference_python())]
    return parity.main(["encode", str(store / "corpus.json"), *arguments, *pythons])


@pytest.mark.parametrize("variant", ["batch_norm"])
def test_both_backends_agree(
    variant: str, store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import_variant(variant)
    monkeypatch.setenv(originals.VARIABLE, str(made().folder))
    (store / "broken.wav").write_bytes(b"RIFF")
    manifest(store, *waves(variant).values(), store / "broken.wav")
    assert run(store, "--units", f"{variant}-kmeans", "--items", "100") == 0
    said = capfd.readouterr().out
    assert f"items      {len(waves(variant))} (" in said
    (unequal,) = re.findall(r"^equal .* \(([\d,]+) of [\d,]+ differ\)$", said, re.MULTILINE)
    assert unequal == "0" or f"near ties  {unequal} of the {unequal} " in said, said
    assert f"not read   {store / 'broken.wav'}: " in said
    assert said.splitlines()[-1].startswith("fit ")


def test_some_items_spread_over_the_manifest(store: Path) -> None:
    path = manifest(store, *(store / f"{number}.wav" for number in range(10)))
    assert [item.index for item in parity._spread(path, 4)] == [0, 2, 5, 7]
    assert [item.index for item in parity._spread(path, 10)] == list(range(10))
    assert [item.index for item in parity._spread(path, 99)] == list(range(10))


def test_what_is_said_of_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        Compared("/a.wav", 1000, 2, 2, 20.0),
        Compared("/b.wav", 3000, 30, 10, 60.0, [3000, 2990]),
        Compared("/c.wav", 6000, 0, 0, 120.0),
        Compared("/d.wav", error="The file is empty (0 bytes)."),
    ]
    assert parity._report(found, 0.999) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "items      3 (3.3 minutes)"
    assert said[2] == "equal      99.6800 % (32 of 10,000 differ)"
    assert said[3].startswith("near ties  12 of the 32 (37.5 %)")
    assert said[4].endswith("/b.wav (native has 3,000 units, the reference 2,990)")
    assert said[5].endswith("/a.wav")
    assert said[6] == "not read   /d.wav: The file is empty (0 bytes)."
    assert said[-1].startswith("NOT FIT")
    assert parity._report(found, 0.99) == 0
    assert parity._report(found[3:], 0.0) == 1, "nothing compared proves nothing"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["encode", "M", "--units", "logmel-kmeans-100"], "log-mel"),
        (["encode", "M", "--units", "nothing-kmeans"], "import-checkpoint"),
        (["encode", "/nowhere/m.json", "--units", "x"], "There is no manifest /nowhere/m.json"),
        (["encode", "M", "--units", "x", "--items", "0"], "--items is at least 1"),
        (["encode", "M", "--units", "x", "--least", "2"], "a share from 0 to 1"),
    ],
)
def test_usage(arguments: list[str], told: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest(store, store / "a.wav")
    given = [str(path) if word == "M" else word for word in arguments]
    assert parity.main([*given, "--native-python", "x", "--reference-python", "y"]) == 2
    assert told in capsys.readouterr().err


def test_pythons_are_needed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(["encode", str(manifest(store)), "--units", "x"]) == 2
    assert "./voxarray parity" in capsys.readouterr().err
