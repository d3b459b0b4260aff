"""Every hard limit that correctness rests on, unit last in the name; `_MAX` is inclusive.

What an operator may tune is a setting; what stands here is not.
"""

from __future__ import annotations

from typing import Final

# ---- key-value store (the smaller of LMDB's and FoundationDB's worlds)
KEY_BYTES_MAX: Final = 500
VALUE_BYTES_MAX: Final = 100_000
TRANSACTION_BYTES_MAX: Final = 10_000_000
"""What an engine refuses (FoundationDB's limit): keys and values written, and ranges cleared."""
TRANSACTION_SECONDS_MAX: Final = 5.0
SCAN_ROWS_MAX: Final = 10_000
"""The most rows that one scan call may ask for; longer reads continue with a cursor."""
PIECE_BYTES_MAX: Final = 90_000
"""A document or item above this is stored in pieces."""
INLINE_BYTES_MAX: Final = 512_000
"""An item above this goes to the blob engine before its transaction."""

# ---- log
RECORD_BYTES_MAX: Final = 24 * 1024 * 1024

# ---- wire
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""Granian closes a connection whose WebSocket message is larger; see the ADR on frames."""
FRAME_INLINE_BYTES_MAX: Final = 256 * 1024
"""Frames above this are decoded off the event loop."""
FRAME_ITEMS_MAX: Final = 100_000
JSON_DEPTH_MAX: Final = 100
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""JSON bodies of REST requests; uploads are streamed and have no such limit."""

# ---- names
RUN_ID_BYTES_MAX: Final = 256
SEQUENCE_NAME_BYTES_MAX: Final = 4096
CONTEXT_BYTES_MAX: Final = 16_384
LABEL_BYTES_MAX: Final = 4096
"""Names of runs, experiments and tags."""
ARTIFACT_PATH_BYTES_MAX: Final = 4096

# ---- ingestion
SLICE_BYTES_MAX: Final = 2_000_000
"""Uncompressed payload that one worker transaction takes on at most, when it is more than one record."""
STEP_MIN: Final = -(2**63)
STEP_MAX: Final = 2**63 - 1

# ---- chunks
TAIL_POINTS_MAX: Final = 256
CHUNK_POINTS_MAX: Final = 2048
PREVIEW_POINTS_MAX: Final = 512
SMALL_BLOCKS_MAX: Final = 8

assert VALUE_BYTES_MAX < TRANSACTION_BYTES_MAX
assert PIECE_BYTES_MAX < VALUE_BYTES_MAX
assert FRAME_BYTES_MAX < RECORD_BYTES_MAX
assert RUN_ID_BYTES_MAX + 64 < KEY_BYTES_MAX
assert CHUNK_POINTS_MAX * 4 * 8 + 256 < PIECE_BYTES_MAX
