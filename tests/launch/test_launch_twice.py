"""One command given twice in the same moment."""

from __future__ import annotations

import json


def test_the_second_command_finds_the_first_at_work(place):
    """Also before the process that pumps the tasks has got as far as saying so itself."""
    manifest = place.manifest(6, nap=0.5)
    commands = [place.start("tone", manifest, "--cluster", "local", "--wait", "--tasks", 1) for _ in range(3)]
    said = [process.communicate(timeout=180) for process in commands]
    assert [process.returncode for process in commands] == [0, 0, 0], said
    (receipt,) = [json.loads(path.read_text()) for path in place.home.glob("output/runs/*/merged.json")]
    assert (receipt["merged"], receipt["spare"], receipt["rows_read"]) == (6, 0, 6), said
    assert sum("is at work already" in error for _, error in said) == 2, said
