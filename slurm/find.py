"""Which run is meant: the engine's answer, for the commands on a run."""

from __future__ import annotations

from pipelines.core.find import LAST, plans, run

__all__ = ["LAST", "plans", "run"]
