"""Which gateways have a spill, where it lies, and what readiness says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matyan.configuration import load
from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import LogEntry
from matyan.engines.log.spilling import SpillingProducer
from matyan.errors import UnavailableError
from matyan.roles.context import DATA_TOPIC, Context, make_context
from matyan.roles.spill import open_spill, require_room
from tests.support.logs import SECONDS
from tests.support.wayward import WaywardProducer

KAFKA = "kafka://127.0.0.1:9"


class FarLog:
    """A log whose producer goes away on command."""

    def __init__(self, path: Path) -> None:
        self._log = open_embedded_log(path, partitions=1)
        self.far = WaywardProducer(self._log.producer())

    def producer(self) -> WaywardProducer:
        return self.far

    def close(self) -> None:
        self._log.close()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarLog]:
    log = FarLog(tmp_path / "log")
    yield log
    log.close()


def context_of(far: FarLog, home: Path, **flags: Any) -> Context:
    values = {"log.uri": KAFKA, "data.home": str(home), **{name.replace("_", ".", 1): flags[name] for name in flags}}
    context = make_context(load(environ={}, flags=values))
    context.log = far  # type: ignore[assignment] # its producer is all that is asked for
    return context


def test_the_spill_lies_under_home_unless_it_is_told_where(far: FarLog, tmp_path: Path) -> None:
    for context, place in (
        (context_of(far, tmp_path / "home"), tmp_path / "home" / "spill" / "spill-0"),
        (context_of(far, tmp_path / "home", spill_path=str(tmp_path / "told")), tmp_path / "told" / "spill-0"),
    ):
        spilling = open_spill(context)
        assert isinstance(spilling, SpillingProducer)
        assert place.is_dir()
        spilling.close()


@pytest.mark.parametrize("flags", [{"log_uri": ""}, {"spill_bytes_max": 0}])
def test_a_log_in_files_and_a_spill_of_nothing_need_no_place(
    far: FarLog, tmp_path: Path, flags: dict[str, object]
) -> None:
    assert open_spill(context_of(far, tmp_path / "home", **flags)) is None
    assert not (tmp_path / "home" / "spill").exists()


def test_without_a_place_there_is_none_and_a_place_that_was_named_is_needed(
    far: FarLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    assert open_spill(context_of(far, tmp_path / "file")) is None
    assert "no place for a spill" in caplog.text
    with pytest.raises(UnavailableError, match=r"the spill fails under .*check that disk"):
        open_spill(context_of(far, tmp_path / "home", spill_path=str(tmp_path / "file" / "spill")))


def test_readiness_needs_room_and_not_the_log(far: FarLog, tmp_path: Path) -> None:
    context = context_of(far, tmp_path / "home", spill_bytes_max=10_000, spill_after_seconds=0.1)
    spilling = open_spill(context)
    assert spilling is not None
    require_room(context, spilling)
    health = context.health
    assert health.run() == {"log": "ok", "spill": "ok"}

    far.far.go_down()
    spilling.append_many(DATA_TOPIC, [LogEntry(b"run", b"x" * 1_000)]).result(SECONDS)
    found = health.run()
    assert (found["log"], found["spill"]) == ("Kafka does not answer: records go to the spill", "ok")
    assert health.is_ready(found)

    spilling.append_many(DATA_TOPIC, [LogEntry(b"run", b"x" * 8_700)]).result(SECONDS)
    found = health.run()
    assert found["spill"] == "Kafka does not answer and the spill is almost full"
    assert not health.is_ready(found)
    spilling.close()
