"""Units that a manifest's rows hold or name, and what is said of bad ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipelines.core.errors import ItemError
from pipelines.core.manifest import parse
from pipelines.units.rows import UnitRows
from tests.units.test_packed import write


def read(duration=None, size=50, codebook_digest=None, **fields):
    row = {"audio_filepath": "/corpus/x.wav", **fields}
    if duration is not None:
        row["duration"] = duration
    reader = UnitRows(size, "logmel-kmeans-50", codebook_digest=codebook_digest)
    (fault,), (units,), (samples,) = reader.read([parse(0, json.dumps(row).encode())])
    if fault is not None:
        raise fault
    return units.tolist(), samples


def test_units_as_text_and_as_a_list():
    assert read(units="3 3 7")[0] == [3, 3, 7]
    assert read(units=[3, 3, 7])[0] == [3, 3, 7]
    assert read(units="3 7", durations="2 1")[0] == [3, 3, 7]


def test_packed_units_keep_their_timing(tmp_path):
    write(tmp_path, [[1], [3, 3, 7]])
    assert read(units_filepath=str(tmp_path), units_row=1)[0] == [3, 3, 7]
    with pytest.raises(ItemError, match="rows 0 to 1"):
        read(units_filepath=str(tmp_path), units_row=2)
    with pytest.raises(ItemError, match="holds no packed units"):
        read(units_filepath=str(tmp_path / "none"), units_row=0)


def test_packed_units_of_another_codebook(tmp_path):
    write(tmp_path, [[1]])
    packed = {"units_filepath": str(tmp_path), "units_row": 0}
    assert read(**packed, codebook_digest="0" * 64)[0] == [1]
    with pytest.raises(ItemError, match=r"of the codebook logmel-kmeans-50 \(00000000\), and not of .* \(11111111\)"):
        read(**packed, codebook_digest="1" * 64)
    assert read(units="1", codebook_digest="1" * 64)[0] == [1], "text does not say what it is of"
    description = tmp_path / "units.json"
    description.write_text(description.read_text().replace("0" * 64, ""))
    assert read(**packed, codebook_digest="1" * 64)[0] == [1], "nor do units that others packed"


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16, torch.uint8])
def test_files_of_units(tmp_path, dtype):
    torch.save(torch.tensor([3, 3, 7], dtype=dtype), tmp_path / "x.pt")
    assert read(units_filepath=str(tmp_path / "x.pt"))[0] == [3, 3, 7]


def test_the_duration_is_kept_where_it_is_that_of_the_units():
    assert read(units="1 2 3", duration=0.0649)[1] == round(0.0649 * 16000)
    assert read(units="1 2 3", duration=5.0)[1] is None
    assert read(units="1 2 3")[1] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no units"),
        ({"units": ""}, "empty"),
        ({"units": []}, "empty"),
        ({"units": "3 x"}, "neither a list of integers"),
        ({"units": [3, 1.5]}, "neither a list of integers"),
        ({"units": [True]}, "neither a list of integers"),
        ({"units": 3}, "neither a list of integers"),
        ({"units": "3 50"}, "the unit 50, and logmel-kmeans-50 has units 0 to 49"),
        ({"units": "-1 3"}, "the unit -1"),
        ({"units": f"{10**30}"}, "neither a list"),
        ({"units": "3 4", "durations": "1"}, "2 units and 1 durations"),
        ({"units": "3 4", "durations": "1 0"}, "below 1 frame"),
    ],
)
def test_bad_units_are_named(fields, message):
    with pytest.raises(ItemError, match=message):
        read(**fields)


def test_files_that_hold_no_units(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(ItemError, match="is not there"):
        read(units_filepath=str(path))
    path.write_bytes(b"PK\3\4 damaged")
    with pytest.raises(ItemError, match="cannot be read as a tensor"):
        read(units_filepath=str(path))
    torch.save(torch.tensor([1.5]), path)
    with pytest.raises(ItemError, match="no one-dimensional tensor of integers"):
        read(units_filepath=str(path))
    torch.save({"units": [1]}, path)
    with pytest.raises(ItemError, match="no one-dimensional"):
        read(units_filepath=str(path))


class Harmful:
    def __reduce__(self):
        return (open, ("/tmp/voxarray-was-here", "w"))


def test_a_file_of_units_runs_nothing(tmp_path):
    torch.save(Harmful(), tmp_path / "x.pt")
    with pytest.raises(ItemError, match="cannot be read as a tensor"):
        read(units_filepath=str(tmp_path / "x.pt"))


def test_one_bad_row_leaves_the_others_alone():
    rows = [
        parse(n, json.dumps({"audio_filepath": f"/{n}", "units": units}).encode())
        for n, units in enumerate(["1", "99", "2"])
    ]
    faults, units, _ = UnitRows(50, "x").read(rows)
    assert [fault is None for fault in faults] == [True, False, True]
    assert np.concatenate(units).tolist() == [1, 2]
