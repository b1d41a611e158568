"""Rows of parts as bytes. Merges and accounts go over tens of millions of them, and look only at what they need.

The layout is `parts.Row` as it is written: `{"index":12,"key":"<16 hex digits>","status":"done","result":{…}}`.
"""

from __future__ import annotations

from typing import Optional

_DONE = b'"status":"done","result":'
_NEAR = (30, 90)
"""Between these positions `_DONE` begins, whatever the index. What a row says itself has its quotes escaped."""


def index(row: bytes) -> int:
    """The item's index."""
    return int(row[9 : row.index(b",", 9)])


def key(row: bytes) -> bytes:
    """The item's key, 16 hex digits."""
    start = row.index(b",", 9) + 8
    return row[start : start + 16]


def result(row: bytes) -> Optional[bytes]:
    """The result (a JSON object) of a row that is done; None for a failure."""
    start = row.find(_DONE, *_NEAR)
    return row[start + 25 : -1] if start > 0 else None
