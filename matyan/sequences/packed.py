"""Blocks for readers: PackedColumns of a long sequence, remembered columns of a short one.

A million points are 32 MB, a tenth of that as they are stored. Most of the time that sending them took went into memory
that was filled once, read once and given back; so nothing is put together that can be sent in parts: columns are
unpacked block by block, while they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from numpy.typing import NDArray

from matyan.sequences import chunks
from matyan.sequences.chunks import ColumnName, Packed
from matyan.sequences.model import Columns

BLOCKS_REMEMBERED_MAX: Final = 4096
"""About what a chart shows; each reading of more begins anew."""
REMEMBERED_POINTS_MAX: Final = 128
"""Of a block: 4 kB when decoded, and a third of that as it is stored."""


class PackedColumns:
    """n points, steps strictly rising; what `Columns` are, but for how they are read."""

    def __init__(self, blocks: Sequence[Packed]) -> None:
        """Keep blocks, each with steps beyond those of the one before."""
        self._blocks = blocks

    def __len__(self) -> int:
        """Return n."""
        return sum(block.points for block in self._blocks)

    def parts(self, name: ColumnName) -> Iterator[NDArray[Any]]:
        """Yield one column in parts of at most CHUNK_POINTS_MAX."""
        return (chunks.decode_column(block, name) for block in self._blocks)


def unpack(blocks: Sequence[bytes], *, columns_max: int) -> Columns | PackedColumns:
    """Return the points of blocks in order of writing; of a step that several hold the later one is true.

    Args:
        blocks: of one sequence, as `chunks` writes them.
        columns_max: up to so many points come as columns; more of them where blocks overlap, which must be merged.
    """
    if sum(map(chunks.count, blocks)) > columns_max:
        packed = [chunks.split(block) for block in blocks if chunks.count(block)]
        if _rise(packed):
            return PackedColumns(packed)
    return chunks.merge([chunks.decode(block) for block in blocks])


def _rise(blocks: Sequence[Packed]) -> bool:
    """Return whether each block begins behind the end of the one before."""
    last: int | None = None
    for block in blocks:
        steps = chunks.decode_column(block, "steps")
        if last is not None and steps[0] <= last:
            return False
        last = int(steps[-1])
    return True


def remembered_columns(block: bytes) -> Columns:
    """Return what `chunks.decode` returns; not to be written.

    A chart of a thousand runs is asked for again and again, and decoding is a third of the work of reading it: blocks
    of short settled sequences are remembered by content.
    """
    is_known = chunks.is_packed(block) and chunks.count(block) <= REMEMBERED_POINTS_MAX
    return _known_columns(block) if is_known else chunks.decode(block)


@lru_cache(maxsize=BLOCKS_REMEMBERED_MAX)
def _known_columns(block: bytes) -> Columns:
    columns = chunks.decode(block)
    for column in columns:
        column.flags.writeable = False
    return columns
