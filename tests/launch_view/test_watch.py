"""`status --watch` on a terminal: of a given size, with keys, resized, suspended, ended; and on one that is dumb."""

from __future__ import annotations

import re
import signal
import termios
import time

import pytest
from watch_reader import Reader, going, lines_of

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def reader(home, moment):
    moment.now = time.time() - 200
    readers = []

    def start(*arguments, **how):
        readers.append(Reader(home, *arguments, **how))
        return readers[-1]

    yield start
    for each in readers:
        each.close()


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_it_fills_the_screen_and_gives_it_back(reader, moment, key):
    going(moment, "one", bad=0.02)
    terminal = reader("--watch", "0.3")
    drawn = terminal.until("\x1b[J")
    assert ENTER in drawn
    text = "\n".join(lines_of(drawn))
    assert "1 run, 1 at work" in text
    assert "one-00000001" in text
    assert "█" in text
    assert "failures by cause" in text
    assert re.search(r"^ +0 +\S* *at work", text, re.MULTILINE)
    assert "q or Ctrl-C leaves" in text
    terminal.until("\x1b[J")
    terminal.type(key)
    exit_status, rest = terminal.left()
    assert exit_status == 0
    assert rest.count(LEAVE) == 1
    assert "one-00000001" in rest.partition(LEAVE)[2], "the last view stays"
    assert "\x1b[?25h" in rest, "the cursor is back"


def test_arrows_choose_a_run(reader, moment):
    for name in ("one", "two", "three"):
        going(moment, name)
    terminal = reader("--watch", "30")
    first = lines_of(terminal.until("\x1b[J"))
    chosen = next(number for number, line in enumerate(first) if line.startswith(">"))
    terminal.type("j" if chosen == 2 else "\x1b[B")
    second = lines_of(terminal.until("\x1b[J"))
    now = next(number for number, line in enumerate(second) if line.startswith(">"))
    assert now == chosen + 1
    run = second[now].split()[1]
    assert any(line.startswith(run) and "at work" in line for line in second), "its tasks are shown"
    terminal.type("kkkkk")
    for _ in range(5):
        last = lines_of(terminal.until("\x1b[J"))
    assert last[2].startswith(">")
    terminal.type("q")
    assert terminal.left()[0] == 0


def test_it_follows_the_terminals_size(reader, moment):
    going(moment, "one", tasks=40, items=8000, speed=2)
    terminal = reader("--watch", "60", rows=40, columns=120)
    large = lines_of(terminal.until("\x1b[J"))
    assert 30 < len(large) <= 40
    terminal.size(12, 60)
    small = lines_of(terminal.until("\x1b[J", 10))
    assert len(small) <= 12
    assert small[-1].startswith("q or Ctrl-C leaves")
    assert "more at work" in "\n".join(small)
    terminal.type("q")
    assert terminal.left()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_when_it_is_told_to_end(reader, moment, number):
    going(moment, "one")
    terminal = reader("--watch", "0.3")
    terminal.until("\x1b[J")
    terminal.process.send_signal(number)
    _, rest = terminal.left()
    assert LEAVE in rest


def test_suspended_and_back(reader, moment):
    going(moment, "one")
    terminal = reader("--watch", "0.3")
    terminal.until("\x1b[J")
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.until(LEAVE)
    time.sleep(0.3)
    assert termios.tcgetattr(terminal.follower) == terminal.settings
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until(ENTER)
    terminal.until("\x1b[J")
    terminal.type("q")
    assert terminal.left()[0] == 0


def test_an_error_gives_the_terminal_back(reader, moment, home):
    maker = going(moment, "one")
    terminal = reader("one", "--watch", "0.2")
    terminal.until("\x1b[J")
    (maker.folder / "launch-000.json").write_text("{")
    exit_status, rest = terminal.left()
    assert exit_status == 1
    assert "launch-000.json" in rest.partition(LEAVE)[2]


def test_several_named_runs_end_by_themselves(reader, moment):
    going(moment, "one", until=None, items=20)
    going(moment, "two", until=None, items=20, bad=1.0)
    terminal = reader("one", "--watch", "0.2", "two")
    exit_status, seen = terminal.left()
    assert exit_status == 1
    assert ENTER not in seen
    assert "one-00000001" in seen
    assert "two-00000001" in seen


def test_the_interval_may_be_left_out_before_a_run(reader, moment):
    going(moment, "one", until=None, items=20)
    exit_status, seen = reader("--watch", "one").left()
    assert exit_status == 0
    assert "one-00000001" in seen


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_lines(reader, moment, term):
    going(moment, "one")
    terminal = reader("--watch", "0.2", TERM=term)
    line = terminal.until("left\r\n")
    assert re.match(r"\d\d:\d\d:\d\d one-00000001 running: [\d,]+ of 2,000 items \(\d+ %\)", line)
    terminal.type("\x03")
    exit_status, rest = terminal.left()
    assert exit_status == 0
    assert "\x1b" not in line + rest
