"""Where the generation of each row of a batch ends at the latest."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import torch
from transformers import StoppingCriteria


class RowLimits(StoppingCriteria):
    """Ends each row after as many tokens as its own limit says, so that its text does not depend on the batch's."""

    def __init__(self, limits: Sequence[int], on: torch.device) -> None:
        self._limits = torch.tensor(limits, device=on)
        self.begun: Optional[int] = None
        """How many tokens the sequences held before the first was generated; None until then."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Which rows (batch,) of the sequences (batch, tokens) are done; called after every token."""
        if self.begun is None:
            self.begun = input_ids.shape[1] - 1
        return self._limits <= input_ids.shape[1] - self.begun
