"""`python -m pipelines.kmeans MANIFEST NAME`: a codebook in one process, or one task of an array."""

from __future__ import annotations

import sys

from pipelines.core.cli import main
from pipelines.kmeans import PIPELINE

sys.exit(main(PIPELINE))
