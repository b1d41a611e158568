"""A home of its own for every test, with the clock in the test's hand."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from made_runs import Moment, held


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXARRAY_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    return tmp_path


@pytest.fixture
def moment(home: Path) -> Iterator[Moment]:
    with held(home, Moment()) as moment:
        yield moment
