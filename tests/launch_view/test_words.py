"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.view.text import Column, Terminal, table, visible, wrapped
from slurm.view.words import amount, brief, counted, figures, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.8333, "0.833"),
        (19.52, "19.5"),
        (312.4, "312"),
        (12345.6, "12,346"),
        (999.7, "1,000"),
        (2e-7, "2e-07"),
        (0.00015, "0.00015"),
    ],
)
def test_figures(value, text):
    assert figures(value) == text


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_a_share_is_whole_only_if_it_is(part, more):
    assert share(part, part + more) not in ("0 %", "100 %", "100.0 %", "0.0 %")
    assert share(part, part) == "100 %"


def test_spans():
    assert [brief(seconds) for seconds in (0, 0.4, 3, 89, 600, 7200, 200000)] == [
        "0 s", "400 ms", "3 s", "89 s", "10 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [amount(seconds) for seconds in (0.09, 8.2, 738, 220320)] == ["90 ms", "8.2 s", "12.3 min", "61.2 h"]
    assert counted(1, "item") == "1 item"
    assert counted(2000, "try", "tries") == "2,000 tries"


def test_a_table_gives_up_columns_before_it_wraps():
    columns = [Column("task"), Column("node", spare=2), Column("state", spare=1), Column("empty")]
    rows = [["1", "node-with-a-long-name", "running", ""]]
    assert table(Terminal(80), columns, rows)[0].split() == ["task", "node", "state"]
    assert table(Terminal(20), columns, rows)[0].split() == ["task", "state"]


def test_wrapping_keeps_long_words_and_indents():
    lines = wrapped("see /a/very/long/path/that/does/not/fit for more", 20, "  ")
    assert lines == ["  see", "  /a/very/long/path/that/does/not/fit", "  for more"]


def test_colours_do_not_count_as_width():
    terminal = Terminal(80, colours=True)
    assert visible(terminal.paint("abc", "red", "bold")) == 3
    assert Terminal(80).paint("abc", "red") == "abc"
    assert visible(terminal.bar(0.999, 10)) == 10
    assert Terminal(80, unicode=False).bar(0.5, 4) == "##.."
