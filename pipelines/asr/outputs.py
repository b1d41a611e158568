"""The manifest with its texts, and how many rows kept the one that they had."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from pipelines.core.output import ManifestOutput, published_by
from pipelines.core.plan import Plan


class Transcribed(ManifestOutput):
    """The manifest itself. A result without fields is that of a row that had a text already."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(Path(plan.manifest), published_by(plan.run_id))
        self._field = plan.parameters["field"]
        self._rows = self._kept = 0

    def write_rows(self, rows: Sequence[bytes], results: Sequence[Optional[bytes]]) -> None:
        """Write the rows of items that follow each other."""
        self._rows += len(rows)
        self._kept += sum(result == b"{}" for result in results)
        super().write_rows(rows, results)

    @property
    def notes(self) -> list[str]:
        """What the user must know of the merge."""
        kept = (
            f"{self._kept:,} of {self._rows:,} rows had `{self._field}` already and keep it as it was: nothing was "
            "done for them. `--redo` transcribes them anew; `--field NAME` writes beside it."
        )
        return [kept] if self._kept else []


def outputs(plan: Plan) -> Transcribed:
    """The consumer of the merge."""
    return Transcribed(plan)
