"""`python -m pipelines.lm MANIFEST [UNITS]`: train in one process, or as one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.lm import PIPELINE

sys.exit(main(PIPELINE))
