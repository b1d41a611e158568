"""Which environment a run needs, where that depends on its parameters. Imports nothing: `--help` uses it too."""

from __future__ import annotations

from typing import Any, Mapping


def chosen(usual: str, others: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """The environment of `others` (keys are `parameter value`) that the parameters ask for, else the usual one."""
    for condition, environment in others.items():
        name, value = condition.split()
        if parameters.get(name) == value:
            return environment
    return usual
