"""Text for terminals: what comes from outside is shown and never obeyed; what is cut ends its colours."""

from __future__ import annotations

import pytest
from made_runs import Made, Maker, look_at
from test_failures import fail

from pipelines.core.errors import plain
from slurm.view import run_text, watch_text
from slurm.view.text import Column, Terminal, fit, table, visible
from slurm.view.watch_text import Frame, Watched

EVIL = "\x1b]0;pwned\x07\x1b[2J\udcff\r\nbye\u202e"
OBEYED = ("\x1b]", "\x1b[2J", "\x07", "\r", "\n", "\udcff", "\u202e")
TITLE = "\x1b[1m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve × 日本.wav", "naïve × 日本.wav"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\r\tc\x07", r"a\nb\r\tc\x07"),
        ("caf\udce9.wav", r"caf\udce9.wav"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9b2J", r"\x9b2J"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_plain(text, shown):
    assert plain(text) == shown
    assert plain(shown) == shown


@pytest.fixture
def view(moment):
    """A run whose files are named, and whose messages are worded, by someone who wants the terminal."""
    maker = Maker(Made(items=8, tasks=2), moment)
    maker.plan()
    maker.launch()
    fail(maker, 0, [1], "no header")
    found = look_at(maker)
    (cause,) = found.failures.causes
    cause = cause._replace(signature=EVIL, examples=[cause.examples[0]._replace(path=f"/data/{EVIL}.wav")])
    tasks = [task._replace(host=EVIL, note=EVIL, state="silent") for task in found.tasks]
    return found._replace(failures=found.failures._replace(causes=[cause]), notes=[EVIL], damaged=[EVIL], tasks=tasks)


@pytest.mark.parametrize("colours", [False, True])
def test_nothing_from_outside_is_obeyed(view, colours):
    terminal = Terminal(120, colours)
    drawn = [*run_text.render(view, terminal), *watch_text.screen(Frame([Watched(view)], 0, 2.0), terminal, 40)]
    assert sum(r"\x1b]0;pwned\x07" in line for line in drawn) >= 6
    for line in drawn:
        assert not any(code in line for code in OBEYED), line
        line.encode()


def test_what_is_cut_ends_its_colours():
    painted = Terminal(80, colours=True).paint("x" * 30, "red")
    assert fit(painted, 10) == "\x1b[31m" + "x" * 9 + "…\x1b[0m"
    assert fit(painted, 30) == fit(painted, 0) == painted
    assert fit("y" * 30, 10) == "y" * 9 + "…"
    assert fit(f"{Terminal(80, colours=True).paint('ab', 'red')} and more", 6) == "\x1b[31mab\x1b[0m an…"


@pytest.mark.parametrize("most", range(1, 12))
def test_what_is_cut_is_as_wide_as_it_may_be(most):
    terminal = Terminal(80, colours=True)
    text = terminal.paint("abcd", "red") + "ef" + terminal.paint("ghijkl", "dim", "bold")
    cut = fit(text, most)
    assert visible(cut) == most
    assert cut.count("\x1b[0m") == cut.count("\x1b[31m") + cut.count("\x1b[2;1m")


def test_a_cut_cell_does_not_colour_the_table():
    terminal = Terminal(80, colours=True)
    lines = table(
        terminal, [Column("state", most=8), Column("left")], [[terminal.paint("unreachable", "red"), "1 min"]]
    )
    assert lines[1] == "\x1b[31munreach…\x1b[0m  1 min"
