"""Rows of parts as bytes. Merges and accounts go over tens of millions of them, and look only at what they need.

The layout is `parts.Row` as it is written: `{"index":12,"key":"<16 hex digits>","status":"done","result":{…}}`.
"""

from __future__ import annotations

from typing import Optional

_DONE = b'"status":"done","result":'
_NEAR = (30, 90)
"""Between these positions `_DONE` begins, whatever the index. What a row says itself has its quotes escaped."""


def indexes(rows: list[bytes]) -> list[int]:
    """The indexes of the rows' items. ValueError where one cannot be read."""
    return [int(row[9 : row.index(b",", 9)]) for row in rows]


def keys(rows: list[bytes]) -> list[bytes]:
    """The keys of the rows' items, 16 hex digits each."""
    return [row[(start := row.index(b",", 9) + 8) : start + 16] for row in rows]


def results(rows: list[bytes]) -> list[Optional[bytes]]:
    """The results (JSON objects) of rows that are done; None for failures."""
    return [row[start + 25 : -1] if (start := row.find(_DONE, *_NEAR)) > 0 else None for row in rows]
