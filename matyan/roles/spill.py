"""open_spill: what a gateway writes to where its log may be away."""

from __future__ import annotations

import logging
from pathlib import Path

from matyan.engines.log.spilling import SpillingProducer, open_spilling_producer
from matyan.errors import UnavailableError
from matyan.roles.context import DATA_TOPIC, Context

logger = logging.getLogger(__name__)


def open_spill(context: Context) -> SpillingProducer | None:
    """Return a producer that goes on taking records while Kafka is away; None for a log that needs none.

    None as well where there is no place for a spill: then frames are refused while Kafka is away.

    Raises:
        UnavailableError: the directory that the settings name cannot be used.
    """
    settings = context.settings
    if not settings.log_uri.startswith("kafka://") or not settings.spill.bytes_max:
        return None
    root = Path(settings.spill.path).expanduser().absolute() if settings.spill.path else settings.home / "spill"
    try:
        return open_spilling_producer(
            context.log.producer(),
            root=root,
            topic=DATA_TOPIC,
            settings=settings.spill,
            metrics=context.metrics,
            clock=context.clock,
        )
    except UnavailableError as error:
        if settings.spill.path:
            raise
        extra = {"reason": error.message}
        logger.warning("no place for a spill: frames are refused while Kafka is away; set spill.path", extra=extra)
        return None


def require_room(context: Context, spilling: SpillingProducer) -> None:
    """Make readiness depend on room in the spill while the log is away, and not on the log.

    Nobody is asked: during an outage that takes longer than those who ask for readiness wait.
    """

    def check_log() -> None:
        if not spilling.is_direct:
            raise UnavailableError("Kafka does not answer: records go to the spill")

    def check_spill() -> None:
        if not spilling.is_ready:
            raise UnavailableError("Kafka does not answer and the spill is almost full")

    context.health.add("log", check_log, is_essential=False)
    context.health.add("spill", check_spill)
