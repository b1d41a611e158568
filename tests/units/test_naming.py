"""Where the file of an item goes: the dataset's own layout is kept, and nothing is written over something else."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest

from pipelines.core.errors import ItemError, ManifestError, UsageError
from pipelines.core.manifest import parse
from pipelines.core.scan import scan
from pipelines.units import naming


def item(path, **fields):
    return parse(0, json.dumps({"audio_filepath": path, "duration": 2.5, **fields}).encode())


def name(path, dataset="expresso", root=None, **fields):
    return str(naming.relative(item(path, **fields), {"dataset": dataset, "root": root}))


def test_the_path_below_the_datasets_folder_is_kept():
    assert name("/data/expresso/audio/ex01/happy.wav") == "audio/ex01/happy"
    assert name("/data/expresso/x.flac") == "x"
    assert name("/data/expresso/x.y.wav") == "x.y"
    assert name("/data/expresso/noend") == "noend"


def test_the_first_folder_of_that_name_counts_so_that_no_two_paths_meet():
    assert name("/data/expresso/a/expresso/x.wav") == "a/expresso/x"


def test_stretches_of_a_recording_have_their_times_in_the_name():
    assert name("/data/expresso/x.wav", offset=0.0) == "x_0.000-2.500"
    assert name("/data/expresso/x.wav", offset=12.34) == "x_12.340-14.840"


def test_root_says_where_the_dataset_begins():
    assert name("/data/other/deep/x.wav", root="/data/other") == "deep/x"
    with pytest.raises(ItemError, match="does not lie below --root"):
        name("/elsewhere/x.wav", root="/data/other")
    with pytest.raises(ItemError, match="does not lie below --root"):
        name("/data/other/../x.wav", root="/data/other")


def test_without_the_datasets_name_in_the_path_the_way_out_is_told():
    with pytest.raises(ItemError, match=r"no folder in its path is named 'expresso'.*--root"):
        name("/data/LibriSpeech/dev/x.wav")
    with pytest.raises(ItemError):  # the file itself is not its folder
        name("/data/expresso")


@pytest.mark.parametrize("bad", ["", "a/b", "..", ".hidden", "-x", "a b"])
def test_datasets_are_one_folders_name(bad):
    with pytest.raises(UsageError, match="must be one folder's name"):
        naming.dataset(Namespace(dataset=bad))


def manifest(tmp_path, *paths):
    path = tmp_path / "manifest.json"
    path.write_text("".join(json.dumps({"audio_filepath": each, "duration": 1.0}) + "\n" for each in paths))
    return path


def names(parameters):
    return lambda each: f"{naming.relative(each, parameters)}.wav"


def test_a_name_that_file_systems_would_not_take_is_told_with_its_length():
    def file_name(path, **fields):
        return naming.file_name(item(path, **fields), {"dataset": "expresso", "root": None}, "wav")

    assert file_name(f"/data/expresso/{'a' * 251}.flac") == f"{'a' * 251}.wav"
    for path, fields in (("a" * 252, {}), ("é" * 126, {}), ("a" * 245, {"offset": 0.0}), ("a" * 256 + "/x", {})):
        with pytest.raises(ItemError, match=r"2\d\d bytes, and file systems take 255"):
            file_name(f"/data/expresso/{path}.wav", **fields)


def test_a_manifest_that_does_not_fit_is_refused_before_anything_starts(tmp_path):
    path = manifest(tmp_path, "/data/expresso/a.wav", "/data/b.wav", "/data/c.wav")
    told = r"For 2 items .*--root.* They all lie below /data: item 2: /data/b.wav; item 3"
    with pytest.raises(ManifestError, match=told):
        scan(path, ("audio_filepath",), names({"dataset": "expresso", "root": None}))


def test_two_recordings_never_go_to_one_file(tmp_path):
    path = manifest(tmp_path, "/data/expresso/a.wav", "/data/expresso/b.wav", "/data/expresso/a.flac")
    with pytest.raises(ManifestError, match=r"items 1 and 3 .*a\.wav, .*a\.flac\) -> a\.wav"):
        scan(path, ("audio_filepath",), names({"dataset": "expresso", "root": None}))
    scan(path, ("audio_filepath",), lambda _: None).close()  # a pipeline that writes no file for an item


def test_a_folder_keeps_the_results_of_recordings_below_one_top(tmp_path):
    def verify(root, *paths):
        naming.verify_source(tmp_path, "speech", manifest(tmp_path, *paths), {"dataset": "expresso", "root": root})

    def claim(root, path):
        naming.claim_source(tmp_path, "speech", item(path), {"dataset": "expresso", "root": root})

    verify(None, "/data/expresso/a.wav")
    claim(None, "/data/expresso/a.wav")
    claim(None, "/more/expresso/b.wav")  # of the same manifest, which has no two files of one name
    verify(None, "/more/expresso/b.wav", "/data/expresso/a.wav", "/even/expresso/c.wav")
    verify("/data/expresso", "/data/expresso/dev/c.wav")
    for root, path in ((None, "/other/expresso/a.wav"), ("/data", "/data/a.wav"), ("/other", "/other/a.wav")):
        with pytest.raises(UsageError, match=r"of the recordings below /data/expresso.*another DATASET"):
            verify(root, path)
    with pytest.raises(UsageError, match="these lie elsewhere"):
        claim("/other", "/other/a.wav")
    naming.verify_source(tmp_path, "units", tmp_path / "none.json", {"dataset": "expresso", "root": "/other"})


def test_a_folder_keeps_one_kind_of_results(tmp_path):
    naming.verify_free(tmp_path, "speech", {"vocoder": "a"})
    naming.claim(tmp_path, "speech", {"vocoder": "a", "speaker": 0})
    naming.claim(tmp_path, "speech", {"speaker": 0, "vocoder": "a"})
    naming.claim(tmp_path, "units", {"anything": "else"})
    for check in (naming.verify_free, naming.claim):
        with pytest.raises(UsageError, match="vocoder a, now b"):
            check(tmp_path, "speech", {"vocoder": "b", "speaker": 0})
