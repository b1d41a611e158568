"""`status CHAIN`: once, as JSON, and kept in view with a line for the run of each step."""

from __future__ import annotations

import json
import time

import pytest
from watch_reader import Reader, going, lines_of

from slurm import status
from slurm.chain import state
from slurm.chain.plan import Link
from slurm.view import watch_chain

CHAIN = "speech-1a2b3c4d"
LINKS = ["find", "transcribe", "learn"]


def written(where="local", **runs):
    """A chain of three steps, of which some have runs at work. On this machine nothing conducts it."""
    links = [Link(name, ["tone", "m.json"], [], LINKS[:place][-1:], 0.0) for place, name in enumerate(LINKS)]
    state.folder(CHAIN).mkdir(parents=True, exist_ok=True)
    state.write_order(state.Order(1, CHAIN, "from recordings to words", "speech.toml", {}, links, [], where, "now"))
    standings = {
        name: state.Standing(state.RUNNING, run=runs[name], conductor="7") if name in runs else state.Standing()
        for name in LINKS
    }
    state.write(state.State(1, CHAIN, standings))


@pytest.fixture
def chain(moment):
    moment.now = time.time() - 200
    ids = {"find": going(moment, "one").folder.name, "transcribe": going(moment, "two").folder.name}
    written(**ids)
    return ids


def test_a_chain_is_found_by_its_id(chain, capsys):
    assert status.main([CHAIN]) == 1, "nothing conducts it"
    out = capsys.readouterr().out
    assert out.startswith(f"{CHAIN}: from recordings to words\n")
    assert "0 of 3 steps are done" in out
    assert status.main([CHAIN, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in value["steps"]] == LINKS
    assert value["steps"][0]["status"]["run"] == chain["find"]


def test_a_chain_that_is_over_is_shown_once(chain, capsys):
    assert status.main([CHAIN, "--watch", "0.2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0].split(" ", 1)[1] for line in lines[:2]] == ["find", "transcribe"]
    assert status.main([CHAIN, "--watch", "0.2", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["chain"] == CHAIN


def test_steps_come_as_the_chain_goes_on(chain):
    written(find=chain["find"])
    known = watch_chain.Chain(CHAIN)
    assert [known.step(run) for run in known.runs()] == ["find"]
    assert "from recordings to words" in known.head()[0]
    written(**chain)
    assert [known.step(run) for run in known.runs()] == ["find", "transcribe"]
    assert known.over([])


def test_on_a_terminal(chain, home):
    """A chain on Slurm counts as at work as long as no queue says otherwise."""
    written(where="slurm", **chain)
    reader = Reader(home, CHAIN, "--watch", "0.3")
    try:
        drawn = lines_of(reader.until("\x1b[J"))
        assert "from recordings to words" in drawn[1]
        assert "0 of 3 steps are done. At work" in drawn[2]
        assert any(line.startswith(">") and "one-00000001" in line for line in drawn)
        reader.type("q")
        exit_status, rest = reader.left()
        assert exit_status == 0
        assert CHAIN in rest.partition("\x1b[?1049l")[2], "the last view stays"
    finally:
        reader.close()
