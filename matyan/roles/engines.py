"""The parts that open engines. Each imports what it opens when it is called: a role pays for its own parts."""

from __future__ import annotations

from matyan.roles.context import Context
from matyan.roles.gauges import sample_producer, sample_store
from matyan.roles.runner import Built
from matyan.roles.secrets import keys_of


def build_kv(context: Context) -> Built:
    """Open the store."""
    from matyan.engines.kv.measured import MeasuredKv  # noqa: PLC0415 - see the module's docstring
    from matyan.engines.open import open_kv  # noqa: PLC0415

    engine = open_kv(context.settings.kv_uri, fdb=context.settings.fdb)
    sample_store(context.metrics, engine)
    context.kv = MeasuredKv(engine, context.metrics)

    def close() -> None:
        if context.leases is not None:
            context.leases.close()
        engine.close()

    return Built(close=close)


def build_log(context: Context) -> Built:
    """Open the log."""
    from matyan.engines.open import open_log  # noqa: PLC0415 - see the module's docstring

    settings = context.settings
    context.log = open_log(settings.log_uri, partitions=settings.log.partitions, kafka=settings.kafka)
    sample_producer(context.metrics, context.log.producer())
    return Built(close=context.log.close)


def build_blob(context: Context) -> Built:
    """Open the object store."""
    from matyan.engines.open import open_blobs  # noqa: PLC0415 - see the module's docstring

    settings = context.settings
    context.blobs = open_blobs(settings.blob_uri, keys=keys_of(settings, "uploads"), s3=settings.s3)
    # Told, but no reason to send requests elsewhere: most of them need no files, and elsewhere is the same store.
    context.health.add("blob", lambda: _ask(context), is_essential=False)
    return Built(close=context.blobs.close)


def _ask(context: Context) -> None:
    context.blobs.info("health")
