"""`python -m pipelines.merge_manifest --manifest M`: merge by hand the run that works on a manifest.

M may as well be the stem of the outputs, the directory that was listed, or a run's id. Idempotent; refuses, and says
what to do, where items are missing.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Optional, Sequence

from pipelines.core import find, logs, merge
from pipelines.core.errors import DONE, SOME_FAILED, VoxarrayError

log = logging.getLogger(__name__)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Merge; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.merge_manifest",
        description="Merge a run: parts -> outputs, in manifest order, with the proof that nothing is lost.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--manifest", required=True, metavar="M", help="manifest, outputs' stem, directory or run's id"
    )
    parser.add_argument("--partial", action="store_true", help="merge what there is, though items are missing")
    options = parser.parse_args(arguments)
    logs.to_stream(sys.stderr, plain=True)
    try:
        receipt = merge.merge(find.run(options.manifest), options.partial)
    except VoxarrayError as error:
        log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
        return error.exit_status
    log.info("%s", merge.summary(receipt))
    return SOME_FAILED if receipt.quarantined or receipt.missing else DONE


if __name__ == "__main__":
    sys.exit(main())
