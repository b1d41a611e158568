"""`python -m pipelines.encode MANIFEST DATASET`: units in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.encode import PIPELINE

sys.exit(main(PIPELINE))
