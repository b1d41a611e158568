"""The models of a run are of one and the same data, which is noticed where it changes, and named where it is bad."""

from __future__ import annotations

import json
import time

import msgspec
import numpy as np
import pytest
import torch

from pipelines.core.errors import ManifestError, UsageError
from pipelines.language import files
from pipelines.lm import checkpoint, packing
from pipelines.lm.data import Corpus, Source
from pipelines.units import packed
from tests.lm import making
from tests.lm.sources import write
from tests.lm.test_options import asked
from tests.units.stage import rows_of

QUICK = [*making.FLAGS, "--num-epochs", "1", "--hidden-size", "8"]


def checkpoints(stage):
    return sorted(path.name for path in (stage.home / "output" / "checkpoints").glob("*/*") if path.is_dir())


# packed units


@pytest.mark.parametrize("kind", ["units", "durations"])
def test_other_units_of_the_same_lengths_are_other_data(tmp_path, kind):
    _, drawn = making.sequences(40)
    raw = kind == "durations"
    corpus = making.corpus(tmp_path / "data", drawn, raw=raw)
    making.trainer(corpus, tmp_path / "model", num_epochs=1).run()
    shard = tmp_path / "data" / "units" / packed.shard_name(kind, 0)
    changed = np.load(shard)
    changed[:2] = [changed[0] + 1, changed[1] - 1] if raw else 11 - changed[:2]
    np.save(shard, changed)
    other = Corpus(Source(tmp_path / "data" / "corpus.json", shard.parent, "speaker", 42, raw))
    assert other.lengths.tolist() == corpus.lengths.tolist()
    with pytest.raises(UsageError, match=r"on other data.*--fresh"):
        making.trainer(other, tmp_path / "model", num_epochs=1)


def test_durations_do_not_matter_where_they_are_not_read(tmp_path):
    _, drawn = making.sequences(40)
    corpus = making.corpus(tmp_path / "data", drawn)
    shard = tmp_path / "data" / "units" / packed.shard_name("durations", 0)
    np.save(shard, np.load(shard) + np.uint16(1))
    again = Corpus(Source(tmp_path / "data" / "corpus.json", shard.parent, "speaker", 42, raw=False))
    assert again.content == corpus.content


def test_a_state_that_knows_nothing_of_units_goes_on(tmp_path):
    """As earlier versions wrote them: three words of data."""
    _, drawn = making.sequences(40)
    corpus = making.corpus(tmp_path / "data", drawn)
    one = making.trainer(corpus, tmp_path / "model", num_epochs=1)
    one.run()
    last = tmp_path / "model" / checkpoint.LAST
    content = torch.load(last, weights_only=True)
    torch.save({**content, "data": one.data.rpartition(" ")[0]}, last)
    assert making.trainer(corpus, tmp_path / "model", num_epochs=1).progress.finished


def test_the_runs_identity_is_of_the_units_too(tmp_path):
    _, drawn = making.sequences(40)
    path, folder = write(tmp_path / "a", drawn, 12)
    _, other = write(tmp_path / "b", [11 - each for each in drawn], 12)
    assert packed.describe(folder).index_sha256 == packed.describe(other).index_sha256
    assert asked(path, folder)["units_digest"] != asked(path, other)["units_digest"]
    described = packed.describe(folder)
    earlier = msgspec.structs.replace(described, units_sha256="")
    (folder / "units.json").write_bytes(msgspec.json.encode(earlier))
    assert asked(path, folder)["units_digest"] == described.index_sha256


# files of tensors


@pytest.fixture
def tensors(stage):
    """A folder of `.pt` files and a manifest; units that never follow themselves."""
    _, drawn = making.sequences(40)
    folder = stage.root / "tokens"
    folder.mkdir()
    rows = []
    for number, units in enumerate(drawn):
        torch.save(torch.tensor(units.astype("int64")), folder / f"{number:03d}.pt")
        rows.append({"audio_filepath": f"/data/{number:03d}.flac", "duration": len(units) / 50})
    return stage.write(rows, "tokens.json"), folder


def test_other_files_of_units_are_another_run(stage, tensors):
    path, folder = tensors
    status, said = stage.give("lm", path, folder, *QUICK)
    assert status == 0, said
    before = asked(path, folder)
    torch.save(torch.zeros(3, dtype=torch.int64), folder / "of_another_manifest.pt")
    assert asked(path, folder) == before
    torch.save(11 - torch.load(folder / "000.pt", weights_only=True), folder / "000.pt")
    assert asked(path, folder) != before
    status, said = stage.give("lm", path, folder, *QUICK)
    assert status == 0, said
    assert len(checkpoints(stage)) == 2


@pytest.mark.parametrize("claimed", [True, False, None])
@pytest.mark.parametrize("follows", [True, False])
def test_files_are_deduplicated_as_encode_says_or_as_they_look(stage, tensors, caplog, monkeypatch, claimed, follows):
    monkeypatch.setenv("VOXARRAY_HOME", str(stage.home))
    path, folder = tensors
    if claimed is not None:
        (folder / ".units.json").write_text(json.dumps({"deduplicate": claimed}))
    if follows:
        torch.save(torch.tensor([1, 1, 2]), folder / "000.pt")
    found = packing.packed(path, folder, None, skip_missing=False)
    corpus = Corpus(Source(found.manifest, found.folder, None, 1, raw=False))
    assert corpus.described().raw == (follows if claimed is None else not claimed)
    assert ("taken to be deduplicated" in caplog.text) == (claimed is None and not follows)
    assert corpus.sequence(0).tolist() == torch.load(folder / "000.pt", weights_only=True).tolist()
    raw = Corpus(Source(found.manifest, found.folder, None, 1, raw=True))
    assert raw.described().raw
    assert raw.sequence(1).tolist() == corpus.sequence(1).tolist()
    if claimed:
        with pytest.raises(UsageError, match=r"--raw asks for one unit a frame.*--no-deduplicate"):
            asked(path, folder, "--raw")


# all models of a grid


def test_a_grid_has_one_corpus(stage):
    """A manifest that grows between two members: the second is refused; --fresh begins both anew."""
    _, drawn = making.sequences(60)
    path, _ = write(stage.root / "data", drawn, 12)
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:40]))
    file = stage.root / "g.toml"
    file.write_text("seed = [1, 2]\n")
    command = ["lm", path, *QUICK, "--grid", file]
    status, said = stage.give(*command, "--limit", 1)
    assert status == 1, said
    path.write_text("".join(rows))
    status, said = stage.give(*command)
    assert status == 2, said
    assert "The first model of this run to be trained is of other data" in said and "--fresh" in said
    time.sleep(1)  # two runs that began in the same second by the same command are taken for one
    status, said = stage.give(*command, "--fresh")
    assert status == 0, said
    found = (stage.home / "output" / "checkpoints").glob(f"*/*/{files.BEST}")
    data = [files.describe(best).description.data for best in found if ".until-" not in best.parent.name]
    assert len(data) == 2 and len(set(data)) == 1


# bad manifests


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (1, '{"duration": 1.0}', r"Item 2 of .*corpus.json cannot be read: .*audio_filepath"),
        (2, '{"audio_filepath": "/corpus/spea', r"Item 3 of .*corpus.json cannot be read: .*truncated"),
        (0, '{"audio_filepath": "/a.wav", "duration": "long"}', r"Item 1 of .* cannot be read: .*duration"),
    ],
)
def test_bad_rows_are_named(tmp_path, number, line, said):
    path, folder = write(tmp_path, [[1, 2, 3], [4, 5], [6, 7, 8, 9]], 12)
    rows = path.read_text().splitlines()
    rows[number] = line
    path.write_text("\n".join(rows))
    with pytest.raises(ManifestError, match=said):
        Corpus(Source(path, folder, None, 1, raw=False))
    with pytest.raises(ManifestError, match=said):
        packing.packed(path, tmp_path, None, skip_missing=True)


def test_a_bad_row_is_no_fault_of_the_combinations(stage):
    _, drawn = making.sequences(40)
    path, _ = write(stage.root / "data", drawn, 12)
    whole = path.read_text()
    path.write_text(whole[:-20])
    status, said = stage.give("lm", path, *QUICK)
    assert status == 2, said
    assert f"Item 40 of {path} cannot be read" in said
    path.write_text(whole)
    status, said = stage.give("lm", path, *QUICK)
    assert status == 0, said
    assert len(checkpoints(stage)) == 1


def test_tables_go_with_files_of_tensors(stage, tensors):
    _, drawn = making.sequences(10)
    _, units = write(stage.root / "data", drawn, 12)
    table = stage.root / "table.csv"
    table.write_text("file_id,duration\n000,1\n")
    with pytest.raises(UsageError, match=r"table.csv is a CSV table.*units are packed|are packed.*voxarray lm"):
        asked(table, units)
    assert asked(table, tensors[1])["units_digest"]
    table.write_bytes(b"file_id,duration\n\xff,1\n")
    with pytest.raises(ManifestError, match=r"table.csv cannot be read as a CSV table.*UTF-8"):
        asked(table, tensors[1])


def test_encode_writes_files_that_lm_knows_as_deduplicated(stage):
    from tests import corpus

    try:
        rows = stage.speech(6)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    path = stage.write(rows, "corpus.json")
    status, said = stage.give("encode", path, "corpus", "--units", stage.fitted(path), "--format", "pt")
    assert status == 0, said
    folder = stage.home / "output" / "corpus"
    status, said = stage.give("lm", path, folder, *QUICK, "--train-ratio", "0.6")
    assert status == 0, said
    (best,) = (stage.home / "output" / "checkpoints").glob(f"*/*/{files.BEST}")
    assert not files.describe(best).description.units.raw
    status, said = stage.give("sample", best.parent, "said", "--max-units", 5, "--frames-per-unit", 2)
    assert status == 0, said
    assert all(row["num_units"] for row in rows_of(stage.home / "metadata" / "said.json"))
