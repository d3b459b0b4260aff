"""Names of the log's topics that other systems may read."""

from __future__ import annotations

from typing import Final

CONTROL_EVENTS: Final = "control-events"
"""What happened to runs, experiments and tags: `wire/events.py`."""
DEAD_LETTERS: Final = "data-ingestion-dead"
"""What could not be applied, with the reason and the place it came from."""

OUTBOX_TOPICS: Final = (CONTROL_EVENTS, DEAD_LETTERS)
"""What the relay takes from the outbox to the log; each waits for itself only."""
