"""`python -m pipelines.sample MODEL NAME`: samples in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.sample import PIPELINE

sys.exit(main(PIPELINE))
