"""A point that was acknowledged is soon seen by every kind of read.

Points are sent one frame at a time and looked for right after their reply; how soon they are seen is measured by
tests/bench, here they only must be seen.
"""

from __future__ import annotations

from typing import Final

from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, message, metric

NO_CONTEXT: Final = canonical(None)


def test_each_acknowledged_point_is_soon_seen_by_a_metric_search(server: MatyanServer, rest: Rest) -> None:
    run = "fresh-points"
    with RawWriter(server.websocket_url, run) as writer:
        writer.send(create(run))
        for step in range(20):
            writer.send(metric(run, "loss", step / 3, step))

            series = eventually(lambda: rest.metrics(run).get(("loss", NO_CONTEXT), {}), lambda found: step in found)  # noqa: B023 - called within the loop
            assert series[step].value == step / 3


def test_runs_params_tags_and_last_values_are_soon_seen_by_a_run_search(server: MatyanServer, rest: Rest) -> None:
    run = "fresh-run"
    query = "run.hparams.lr == 0.5 and 'new' in run.tags and run.metrics['loss'].last == 0.25"
    with RawWriter(server.websocket_url, run) as writer:
        writer.send(
            create(run),
            message("log_hparams", run, value={"hparams": {"lr": 0.5}}),
            message("add_tag", run, tag_name="new"),
            metric(run, "loss", 0.25, 7),
        )

        found = eventually(lambda: rest.runs(query), len)

    assert list(found) == [run]


def test_a_finished_run_is_soon_no_longer_active(server: MatyanServer, rest: Rest) -> None:
    run = "fresh-end"
    with RawWriter(server.websocket_url, run) as writer:
        writer.send(create(run))
        assert eventually(lambda: list(rest.runs("run.active == True and run.hash == 'fresh-end'")), bool) == [run]

        writer.send(message("finish_run", run, client_datetime="2026-11-21T03:50:42+00:00"))

        assert eventually(lambda: rest.info(run)["props"]["end_time"], bool) == 1795233042.0
