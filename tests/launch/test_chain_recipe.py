"""Recipes: what they say, in which order it is done, and how faults in them are told."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import UsageError
from slurm.chain import plan, recipe

HEAD = """
title = "A test"
[values]
manifest = { about = "what is read", path = true }
factor = "2"
"""
TWO = """
[[step]]
name = "first"
run = "tone {manifest} --factor {factor}"
[[step]]
name = "second"
run = "scribe {first.manifest} {factor}-fold"
"""


@pytest.fixture
def written(place):
    """Write a recipe, and its links with these values."""

    def write(text, head=HEAD, **values):
        path = place.root / "test.toml"
        path.write_text(head + text)
        read = recipe.read(path)
        return plan.links(read, plan.values(read, {"manifest": "m.json", **values}))

    return write


def order(links):
    """Pairs (earlier, later) of links that never run at once, all that follow from others included."""
    after = {link.name: set(link.after) for link in links}
    for _ in after:
        for name, before in after.items():
            after[name] = before.union(*(after[one] for one in before))
    return {(one, name) for name, before in after.items() for one in before}


def test_values_and_references(written, place):
    first, second = written(TWO, factor="3")
    assert first.words == ["tone", str(place.root / "m.json"), "--factor", "3"]
    assert second.words == ["scribe", "{first.manifest}", "3-fold"]
    assert (first.after, second.after) == ([], ["first"])
    assert plan.referring(second.words[1], {"first": {"manifest": "/m"}}) == "/m"


def test_values_with_spaces_stay_one_word(written):
    first, _ = written(TWO, factor="a b")
    assert first.words[3] == "a b"


def test_fanned_out_steps_and_those_that_follow_them(written):
    links = written(
        TWO.replace(
            '[[step]]\nname = "second"', 'each = { factor = ["1", "2"], voice = ["x"] }\n[[step]]\nname = "second"'
        )
        + '[[step]]\nname = "third"\nrun = "wer {first.manifest} --field x{factor}"\nafter = ["second"]\n'
    )
    names = [link.name for link in links]
    one, two = "[factor=1][voice=x]", "[factor=2][voice=x]"
    assert names == [f"{step}{which}" for step in ("first", "second", "third") for which in (one, two)]
    assert links[2].words == ["scribe", f"{{first{one}.manifest}}", "1-fold"]
    assert f"second{two}" in links[5].after


def test_choices_that_end_in_one_command_are_refused(written):
    """Both would read what the last of the fanned-out steps wrote into the manifest they share."""
    text = '[[step]]\nname = "units"\nrun = "encode {manifest} d{k} --units logmel-kmeans-{k}"\n'
    text += 'each = { k = ["4", "8"] }\n'
    with pytest.raises(UsageError, match=re.escape("lm[k=4] and lm[k=8] would be one and the same command")):
        written(text + '[[step]]\nname = "lm"\nrun = "lm {units.manifest}"\n')
    links = written(text + '[[step]]\nname = "lm"\nrun = "lm {units.units}/manifest.json"\n')
    assert [link.words[1] for link in links[2:]] == [f"{{units[k={k}].units}}/manifest.json" for k in (4, 8)]


def test_what_extends_a_manifest_is_alone_with_it(written):
    """Whatever `after` says, a step that adds to a manifest runs before or after all others of that manifest."""
    links = written(
        TWO
        + '[[step]]\nname = "third"\nrun = "tone {second.manifest} --factor 5"\nafter = []\n'
        + '[[step]]\nname = "fourth"\nrun = "chime /recordings"\nafter = []\n'
    )
    assert ("first", "third") in order(links)
    assert ("second", "third") in order(links)
    assert links[3].after == []


commands = st.sampled_from(
    ["tone {m}", "scribe {m} x", "vad /r /s", "sts {m} y", "encode {m} z", "units u", "asr {m}"]
)


@given(drawn=st.lists(st.tuples(commands, st.integers(0, 9), st.booleans()), min_size=1, max_size=7))
def test_laws_of_the_order(tmp_path_factory, drawn):
    """Links refer to earlier ones alone; every pair on one manifest of which one extends it is ordered."""
    text = HEAD
    for number, (command, source, free) in enumerate(drawn):
        earlier = [one for one in range(number) if drawn[one][0].split()[0] in ("tone", "encode", "asr")]
        word = f"{{s{earlier[source % len(earlier)]}.manifest}}" if earlier and source < 5 else "{manifest}"
        text += f'[[step]]\nname = "s{number}"\nrun = "{command.replace("{m}", word)}"\n'
        text += "after = []\n" if free else ""
    path = tmp_path_factory.mktemp("r") / "r.toml"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        from tests.launch.conftest import REPOSITORY

        patch.setenv("VOXARRAY_PIPELINES", str(REPOSITORY / "tests" / "toys"))
        read = recipe.read(path)
        links = plan.links(read, plan.values(read, {"manifest": "/m.json"}))
    names = [link.name for link in links]
    assert all(names.index(before) < names.index(link.name) for link in links for before in link.after)
    ordered = order(links)
    on_manifest = [
        link.name for link in links if "{m" in link.words[1] or "manifest" in link.words[1] or "/m" in link.words[1]
    ]
    extending = {link.name for link in links if link.words[0] in ("tone", "scribe", "encode", "asr")}
    for one, other in itertools.combinations(on_manifest, 2):
        if {one, other} & extending:
            assert (one, other) in ordered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[step]]\nname = 'a'\nrun = 'tone {manifets}'", "Did you mean {manifest}"),
        ("[[step]]\nname = 'a'\nrun = 'tnoe {manifest}'", "Did you mean tone"),
        ("[[step]]\nname = 'a'\nrun = 'tone {b.manifest}'", "no step above it has that name"),
        ("[[step]]\nname = 'a'\nrun = 'tone {manifest}'\nafter = ['z']", "no step above it has that name"),
        ("[[step]]\nname = 'a'\nrun = 'tone {manifest}'\nafetr = []", "afetr, which is not known"),
        ("[[step]]\nname = 'a'\nrun = ''", "no command"),
        ("[[step]]\nname = 'a'\nrun = \"tone 'x\"", "not a command line"),
        ("[[step]]\nname = 'A b'\nrun = 'tone x'", "needs a name"),
        ("[[step]]\nname = 'a'\nrun = 'tone x --wait'", "the whole chain's concern"),
        ("[[step]]\nname = 'a'\nrun = 'tone x'\nmost_failed = 7", "a share from 0 to 1"),
        ("[[step]]\nname = 'a'\nrun = 'tone x'\neach = {b = []}", "a table of lists"),
        ("[[step]]\nname = 'a'\nrun = 'tone x'\n[[step]]\nname = 'a'\nrun = 'tone y'", "several steps named a"),
        (
            "[[step]]\nname = 'a'\nrun = 'tone x'\n[[step]]\nname = 'b'\nrun = 'tone {a.units}'",
            "a leaves manifest",
        ),
        (
            "[[step]]\nname = 'a'\nrun = 'vad x'\n[[step]]\nname = 'b'\nrun = 'tone {a.segmants}'",
            "a leaves manifest, segments, statistics",
        ),
        ("step = []", "no [[step]]"),
        ("values = 3\n[[step]]\nname = 'a'\nrun = 'tone x'", "values is a table"),
        ("[[step]\n", "not TOML that can be read"),
    ],
)
def test_faults_are_told(written, text, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        written(text, head=HEAD if text.startswith("[[s") else "")


def test_values_that_are_missing_or_unknown(place):
    path = place.root / "test.toml"
    path.write_text(HEAD + TWO)
    read = recipe.read(path)
    with pytest.raises(UsageError, match=r"needs manifest=….*what is read"):
        plan.values(read, {})
    with pytest.raises(UsageError, match="has no value fcator"):
        plan.values(read, {"manifest": "x", "fcator": "2"})


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_shipped_recipes_are_whole(name, place):
    from slurm.chain import command

    read = recipe.read(name)
    values = {key: "x" for key, value in read.values.items() if value.default is None}
    links = plan.links(read, plan.values(read, values))
    assert links
    options = command._parser().parse([name, "--cluster", "local"])
    assert command.make(name, values, options).links == links
    assert all(value.about for value in read.values.values())


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("sts /m.json d --units hubert-base-ls960-kmeans-100", "import-checkpoint hubert-base-ls960-kmeans-100"),
        ("encode /m.json d --units hubrt-base", "hubrt-base"),
        ("asr /m.json --model nvidia/canary-qwen-2.5b", "hf download nvidia/canary-qwen-2.5b"),
    ],
)
def test_models_that_are_not_there_are_told_before_anything_is_done(place, monkeypatch, step, message):
    from slurm.chain import command

    monkeypatch.setenv("HF_HOME", str(place.root))
    path = place.root / "models.toml"
    path.write_text(f'[[step]]\nname = "vad"\nrun = "vad /r /m"\n[[step]]\nname = "late"\nrun = "{step}"\n')
    options = command._parser().parse([str(path), "--cluster", "local"])
    with pytest.raises(UsageError, match="Step late cannot be done") as told:
        command.make(path, {}, options)
    assert message in str(told.value)
