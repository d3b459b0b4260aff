"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 5.0


def growing_pauses() -> Iterator[float]:
    """Yield growing pauses with jitter, so that workers do not come back all at once."""
    pause = BACKOFF_SECONDS_MIN
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        pause = min(pause * 2, BACKOFF_SECONDS_MAX)
