"""Manifests as users have them: oddities are taken off and told, faults are named by line, and nothing is started."""

from __future__ import annotations

import json
import random
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import merge, scan
from pipelines.core.errors import ManifestError
from pipelines.core.manifest import items, key_of
from tests.core.world import World, conserved, launch, settle

GOOD = b'{"audio_filepath":"/a/%d.wav","duration":1.5}\n'
FIVE = [GOOD % number for number in range(5)]


def scanned(world: World, data: bytes, requires=("audio_filepath", "duration")):
    path = world.root / "corpus.json"
    path.write_bytes(data)
    with scan.scan(path, requires) as found:
        return found.identity, found.notes


def refusal(world: World, data: bytes, requires=("audio_filepath", "duration")) -> str:
    with pytest.raises(ManifestError) as caught:
        scanned(world, data, requires)
    said = str(caught.value)
    assert str(world.root / "corpus.json") in said
    assert "\n" not in said
    assert caught.value.exit_status == 2
    return said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"audio_filepath": "/a.wav", "duration": 1', "JSON"),
        (b"not json", "JSON"),
        (b'{"duration": 1}', "missing required field `audio_filepath`"),
        (b'{"audio_filepath": "/a.wav"}', "duration is missing"),
        (b'{"audio_filepath": "/a.wav", "duration": null}', "duration is missing"),
        (b'{"audio_filepath": "/a.wav", "duration": NaN}', "NaN or Infinity"),
        (b'{"audio_filepath": "/a.wav", "duration": -Infinity}', "NaN or Infinity"),
        (b'{"audio_filepath": "/a.wav", "duration": 1e999}', "out of range"),
        (b'{"audio_filepath": "/a.wav", "duration": -0.5}', "duration is -0.5, and must be 0 or more"),
        (b'{"audio_filepath": "/a.wav", "duration": "3.2"}', "Expected `float"),
        (b'{"audio_filepath": "/a.wav", "duration": 1, "offset": -1}', "offset is -1"),
        (b'{"audio_filepath": 7, "duration": 1}', "Expected `str`"),
        (b'{"audio_filepath": "a.wav", "duration": 1}', "not absolute"),
        (b'{"audio_filepath": "./a.wav", "duration": 1}', "not absolute"),
        (b'{"audio_filepath": "~/a.wav", "duration": 1}', "not absolute"),
        (b'{"audio_filepath": "", "duration": 1}', "not absolute"),
        (b'[{"audio_filepath": "/a.wav", "duration": 1}]', "JSON array"),
        (b'{"audio_filepath": "/\xff.wav", "duration": 1}', "utf-8"),
        (b'{"audio_filepath": "/a.wav", "duration": 1, "caf\xe9": 1}', "utf-8"),
        (b'{"audio_filepath": "/a.wav", "duration": 1, "\\uD800 (half a letter)": 1}', "surrogate"),
        (b'"/a.wav"', "Expected `object`"),
        (b"null", "Expected `object`"),
        (b'{"audio_filepath": "/a.wav", "duration": 1} {"audio_filepath": "/b.wav", "duration": 1}', "JSON"),
    ],
)
def test_a_fault_is_named_with_its_line(world, line, words):
    said = refusal(world, b"".join([*FIVE, line + b"\n", GOOD % 9]))
    assert "1 of its lines" in said
    assert "line 6: " in said
    assert words.lower() in said.lower()
    assert "nothing is lost" in said


def test_a_field_that_the_pipeline_needs_is_asked_for(world):
    said = refusal(
        world, FIVE[0] + b'{"audio_filepath":"/b.wav","duration":1,"text":"x"}\n', ("audio_filepath", "text")
    )
    assert "line 1: text is missing" in said
    assert "line 2" not in said


def test_a_missing_duration_is_fine_where_it_is_not_needed(world):
    identity, _ = scanned(world, b'{"audio_filepath":"/a.wav"}\n', ("audio_filepath",))
    assert (identity.items, identity.audio_seconds) == (1, None)


def test_lists_of_faults_stop_at_ten(world):
    said = refusal(world, b"".join(b'{"audio_filepath": "%d"}\n' % number for number in range(1234)))
    assert "1,234 of its lines" in said
    assert said.count("audio_filepath is not absolute") == 10
    assert "… and 1,224 more" in said


def test_line_numbers_count_blank_lines(world):
    assert "line 4: " in refusal(world, b"\n\n" + FIVE[0] + b"oops\n")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xef\xbb\xbf" + b"".join(FIVE), ["byte-order mark"]),
        (b"".join(FIVE).replace(b"\n", b"\r\n"), ["(CRLF) on 5 lines"]),
        (b"".join(FIVE)[:-1], ["does not end with a newline"]),
        (b"\n \n".join(FIVE) + b"\t\n\n", ["10 blank lines"]),
        (b"\xef\xbb\xbf" + b"\r\n\r\n".join(line[:-1] for line in FIVE), ["byte-order", "CRLF", "blank", "newline"]),
        (b"".join(b"  " + line[:-1] + b" \n" for line in FIVE), []),
    ],
)
def test_oddities_are_taken_off_told_and_change_nothing(world, data, told):
    plain, _ = scanned(world, b"".join(FIVE))
    identity, notes = scanned(world, data)
    assert (identity.items, identity.order, identity.audio_seconds) == (plain.items, plain.order, plain.audio_seconds)
    assert len(notes) == len(told)
    assert all(word in note for word, note in zip(told, notes))
    assert [item.key for item in items(world.root / "corpus.json")] == [key_of(f"/a/{n}.wav", 0.0) for n in range(5)]


@pytest.mark.parametrize("odd", [b"\xef\xbb\xbf%s", b"%s"])
def test_a_manifest_with_oddities_merges_into_a_clean_one_and_is_kept(world, odd):
    path = world.root / "corpus.json"
    data = odd % b"\r\n \r\n".join(line[:-1] for line in FIVE)
    path.write_bytes(data)
    run = world.run(path)
    settle(run, launch(run, 2))
    assert conserved(merge.merge(run)).merged == 5
    assert path.read_bytes().startswith(b'{"audio_filepath":"/a/0.wav","duration":1.5,"tone":')
    assert b"\r" not in path.read_bytes()
    assert path.read_bytes().count(b"\n") == 5
    assert path.with_name("corpus.json.bak").read_bytes() == data


def test_the_same_recording_twice_is_refused_by_item_and_at_most_ten_are_listed(world):
    said = refusal(world, b"".join([*FIVE, FIVE[2], FIVE[0]]))
    assert "items 3 and 6: /a/2.wav" in said
    assert "items 1 and 7: /a/0.wav" in said
    assert "more" not in said.split("Remove")[0].replace("more than once", "")
    many = [GOOD % number for number in range(40)]
    said = refusal(world, b"".join(many + many))
    assert said.count("/a/") == 10
    assert "… and 30 more" in said


def test_segments_of_one_recording_are_different_items(world):
    rows = [{"audio_filepath": "/a.wav", "duration": 1.0 + n % 2, "offset": n // 2 / 10} for n in range(200)]
    identity, notes = scanned(world, "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert (identity.items, notes) == (200, [])


def test_an_empty_a_missing_and_an_unreadable_manifest_are_told_apart(world):
    assert "has no items" in refusal(world, b"")
    assert "has no items" in refusal(world, b"\n\n  \n")
    path = world.root / "corpus.json"
    path.unlink()
    with pytest.raises(ManifestError, match="There is no manifest"):
        scan.scan(path)
    path.mkdir()
    with pytest.raises(ManifestError, match="is a directory"):
        scan.scan(path)
    denied = mock.patch("pathlib.Path.open", side_effect=PermissionError(13, "Permission denied"))
    with denied, pytest.raises(ManifestError, match="Check its permissions"):
        scan.scan(path)


def test_a_manifest_that_grows_while_it_is_read_is_refused(world):
    path = world.root / "corpus.json"
    path.write_bytes(b"".join(FIVE))
    real = scan._refuse_duplicates

    def meanwhile(*arguments):
        with path.open("ab") as file:
            file.write(GOOD % 99)
        return real(*arguments)

    with mock.patch.object(scan, "_refuse_duplicates", meanwhile), pytest.raises(ManifestError, match="still writing"):
        scan.scan(path)


@given(st.lists(st.integers(0, 400), unique=True, min_size=1, max_size=40), st.randoms())
def test_the_order_identifies_the_items_in_their_order_and_nothing_else(numbers, chance):
    with World() as world:
        one, _ = scanned(world, b"".join(GOOD % n for n in numbers))
        rows = [{"text": "x" * chance.randrange(5), "duration": 2, "audio_filepath": f"/a/{n}.wav"} for n in numbers]
        two, _ = scanned(world, "".join(json.dumps(row) + "\n" for row in rows).encode())
        shuffled = sorted(numbers, key=lambda _: chance.random())
        three, _ = scanned(world, b"".join(GOOD % n for n in shuffled))
    assert one.order == two.order
    assert (one.order == three.order) == (shuffled == numbers)
    assert one.sha256 != two.sha256


@pytest.mark.parametrize("what", ["broken", "duplicates", "empty"])
def test_the_command_says_one_paragraph_and_makes_nothing(world, what):
    data = {"broken": b"".join(FIVE) + b"{", "duplicates": FIVE[0] * 2, "empty": b""}[what]
    path = world.root / "corpus.json"
    path.write_bytes(data)
    status, said = world.command(path)
    assert status == 2
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    assert path.read_bytes() == data
    assert not list(world.home.rglob("launch-*"))
    path.write_bytes(b"".join(FIVE))
    status, said = world.command(path)
    assert status == 0, said


def test_a_missing_manifest_is_a_usage_error(world):
    status, said = world.command(world.root / "nothing.json")
    assert status == 2
    assert "does not exist" in said
    assert "Traceback" not in said


def test_memory_does_not_grow_with_the_manifest(world):
    """A scan of 60,000 rows holds no more than its buffers: bytes of Python objects, as tracemalloc counts them."""
    import tracemalloc

    chance = random.Random(0)
    peaks = []
    for count in (20_000, 60_000):
        data = b"".join(GOOD % chance.getrandbits(60) for _ in range(count))
        (world.root / "corpus.json").write_bytes(data)
        tracemalloc.start()
        with scan.scan(world.root / "corpus.json"):
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 60_000 * 20, peaks
