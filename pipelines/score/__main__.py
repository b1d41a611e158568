"""`python -m pipelines.score MANIFEST MODEL`: scores in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.score import PIPELINE

sys.exit(main(PIPELINE))
