"""Adding a result's fields to a manifest row, on odd JSON: the same object as a parser would make, and idempotent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.output import ManifestOutput, with_fields
from tests.core.world import World

texts = st.text(max_size=8)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
names = st.one_of(
    texts, st.sampled_from(["text", "duration", "audio_filepath", 'a"b', "tönung", "\\", "\u2028", "😀"])
)
objects = st.dictionaries(names, values, max_size=5)
styles = st.sampled_from([
    {"separators": (",", ":")},
    {"separators": (", ", ": ")},
    {"separators": (" , ", " : "), "ensure_ascii": False},
    {"separators": (",", ":"), "ensure_ascii": False},
])  # fmt: skip


def dumped(value, style, edge: str = "") -> bytes:
    text = json.dumps(value, **style)
    return (edge + text[0] + edge + text[1:-1] + edge + text[-1] + edge).encode("utf-8", "surrogatepass")


def clean(value) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(objects.filter(clean), objects.filter(clean), styles, st.sampled_from(["", " ", "\t", "  "]))
def test_the_row_gets_the_fields_and_keeps_its_own(row, result, style, edge):
    row = {"audio_filepath": "/a.wav", **row}
    before, added = dumped(row, style, edge), dumped(result, {"separators": (",", ":"), "ensure_ascii": False})
    after = with_fields(before, added)
    assert json.loads(after) == {**row, **result}
    assert b"\n" not in after
    if not set(row) & set(result):
        assert list(json.loads(after)) == [*row, *result]


@given(objects.filter(clean), objects.filter(clean), styles, st.sampled_from(["", " "]))
def test_adding_the_same_fields_again_changes_no_byte(row, result, style, edge):
    before = dumped({"audio_filepath": "/a.wav", **row}, style, edge)
    added = dumped(result, {"separators": (",", ":"), "ensure_ascii": False})
    once = with_fields(before, added)
    assert with_fields(once, added) == once


@pytest.mark.parametrize(
    ("row", "result", "after"),
    [
        (b'{"a": 1}', b"{}", b'{"a": 1}'),
        (b'{"a": 1}', b'{"b":2}', b'{"a": 1,"b":2}'),
        (b'{"a": 1 } \t', b'{"b":2}', b'{"a": 1,"b":2}'),
        (b'{"b": 1, "a": 0.10}', b'{"b":2}', b'{"b":2,"a":0.10}'),
        (b'{"a": "b", "c": {"b": 1}}', b'{"b":2}', b'{"a": "b", "c": {"b": 1},"b":2}'),
        (b'{"\\u0062": 1}', b'{"b":2}', b'{"b":2}'),
        (b'{"t": "\\u00e9"}', b'{"b":2}', b'{"t": "\\u00e9","b":2}'),
        (b'{"t": ",\\"b\\":2}"}', b'{"b":2}', b'{"t": ",\\"b\\":2}","b":2}'),
        (b"{}", b'{"b":2}', b'{"b":2}'),
        (b"{ }", b'{"b":2}', b'{"b":2}'),
    ],
)
def test_examples(row, result, after):
    assert with_fields(row, result) == after


windows = st.lists(
    st.tuples(objects.filter(clean), st.one_of(st.none(), objects.filter(clean))), min_size=1, max_size=6
)
small = st.dictionaries(st.sampled_from(["text", "a", "tönung"]), values, min_size=1, max_size=2)
alike = st.lists(st.tuples(objects.filter(clean), small.filter(clean)), min_size=1, max_size=6)


@given(st.one_of(windows, alike), styles, st.sampled_from(["", " "]))
def test_many_rows_at_once_are_each_by_itself(window, style, edge):
    rows = [dumped({"audio_filepath": "/a.wav", **row}, style, edge) for row, _ in window]
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    added = [None if result is None else dumped(result, compact) for _, result in window]
    with World() as world:
        output = ManifestOutput(world.root / "corpus.json", {})
        output.open()
        output.write_rows(rows, added)
        output.publish()
        written = (world.root / "corpus.json").read_bytes()
    one_by_one = [with_fields(row, result) if result else row for row, result in zip(rows, added)]
    assert written.split(b"\n") == [*one_by_one, b""]
