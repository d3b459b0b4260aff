"""Bad input gets an error and costs nothing but itself.

Each test sends something wrong among things that are right, on a connection to a real server, and looks at what was
answered, what was kept, and whether the connection goes on.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.support.rest import Rest, canonical, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, frames, message, metric

NO_CONTEXT: Final = canonical(None)
MEGABYTE: Final = 1_000_000
SEQUENCES: Final = 100_000


def values(rest: Rest, run: str, name: str) -> dict[int, float]:
    series = rest.metrics(run).get((name, NO_CONTEXT), {})
    return {step: point.value for step, point in series.items()}


def assert_goes_on(socket: RawWriter, rest: Rest, run: str) -> None:
    """The connection takes data after whatever came before, and the data is shown."""
    assert socket.send(metric(run, "afterwards", 1.0, 0))["status"] == "ok"
    assert eventually(lambda: values(rest, run, "afterwards"), bool) == {0: 1.0}


NO_FRAMES: Final = {
    "no-json": "{not json",
    "empty-text": "",
    "number": "5",
    "null": "null",
    "string": '"text"',
    "array-of-numbers": "[1, 2]",
    "trailing-bytes": '{"type": "add_tag", "tag_name": "x"} {}',
    "deep": "[" * 100_000,
    "no-type": '{"name": "loss"}',
    "unknown-type": '{"type": "launch_missiles", "run_id": "x"}',
    "type-is-a-list": '{"type": ["log_metric"]}',
}


@pytest.mark.parametrize("name", NO_FRAMES)
def test_a_frame_that_is_none_gets_one_error_and_the_connection_goes_on(
    server: MatyanServer, rest: Rest, name: str
) -> None:
    run = f"frame-{name}"
    with RawWriter(server.websocket_url, run) as socket:
        socket.send(create(run))

        reply = socket.send_text(NO_FRAMES[name])

        assert reply["status"] == "error"
        assert reply["error"]
        assert_goes_on(socket, rest, run)


def test_an_empty_array_is_fine(server: MatyanServer, rest: Rest) -> None:
    with RawWriter(server.websocket_url, "empty-array") as socket:
        assert socket.send_text("[]") == {"status": "ok", "error": None}
        assert_goes_on(socket, rest, "empty-array")


BAD_ITEMS: Final[dict[str, dict[str, Any]]] = {
    "text-as-value": {"value": "abc"},
    "list-as-value": {"value": [1.0]},
    "null-as-value": {"value": None},
    "number-as-name": {"name": 7},
    "null-as-name": {"name": None},
    "fractional-step": {"step": 1.5},
    "text-as-step": {"step": "one"},
    "step-beyond-64-bit": {"step": 2**63},
    "list-as-context": {"context": [1]},
    "name-of-a-megabyte": {"name": "n" * MEGABYTE},
    "name-over-4-kB": {"name": "n" * 4097},
    "context-of-a-megabyte": {"context": {"c": "x" * MEGABYTE}},
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_bad_item_costs_only_itself(server: MatyanServer, rest: Rest, name: str) -> None:
    run = f"item-{name}"
    bad = {**metric(run, "bad", 1.0, 0), **BAD_ITEMS[name]}
    with RawWriter(server.websocket_url, run) as socket:
        socket.send(create(run), metric(run, "before", 1.0, 0), bad, metric(run, "after", 2.0, 0))

        assert_goes_on(socket, rest, run)

    kept = {name for name, _ in rest.metrics(run)}
    assert kept == {"before", "after", "afterwards"}
    warnings = [record for record in rest.records(run) if record["log_level"] == "WARNING"]
    assert len(warnings) == 1, "the refused item is not shown to the run's owner"


def test_odd_but_acceptable_values_are_kept(server: MatyanServer, rest: Rest) -> None:
    run = "odd"
    odd = [
        metric(run, "numeric text", "2.5", 0),
        metric(run, "boolean", True, 0),
        metric(run, "fractional epoch", 1.0, 0, epoch=0.25),
        metric(run, "huge integer", 10**30, 0),
        metric(run, "empty context", 1.0, 0, context={}),
        metric(run, "least step", 1.0, -(2**63)),
        metric(run, "no time", 1.0, 0, client_datetime=None),
    ]
    with RawWriter(server.websocket_url, run) as socket:
        reply = socket.send(*odd)

        assert_goes_on(socket, rest, run)

    assert reply == {"status": "ok", "error": None}
    assert {name for name, _ in rest.metrics(run)} == {item["name"] for item in odd} | {"afterwards"}
    assert values(rest, run, "huge integer") == {0: 1e30}
    assert rest.metrics(run)[("fractional epoch", NO_CONTEXT)][0].epoch == 0.25


def test_lone_surrogates_do_not_break_a_frame(server: MatyanServer, rest: Rest) -> None:
    run = "surrogates"
    with RawWriter(server.websocket_url, run) as socket:
        text = json.dumps([create(run), message("log_hparams", run, value={"bad": "a\ud800b", "good": 1})])
        socket.send_text(text)

        assert_goes_on(socket, rest, run)

    assert rest.info(run)["params"]["good"] == 1


def test_a_megabyte_of_anything_is_kept_or_refused_alone(server: MatyanServer, rest: Rest) -> None:
    run, long = "megabytes", "0123456789" * (MEGABYTE // 10)
    text = {"type": "text", "data": long}
    with RawWriter(server.websocket_url, run) as socket:
        socket.send(create(run))
        socket.send(message("log_hparams", run, value={"long": long}))
        socket.send(message("log_terminal_line", run, line=long, step=0))
        socket.send(message("log_record", run, message=long, level=20, timestamp=1.0))
        socket.send(message("log_custom_object", run, name="long text", value=text, step=0, dtype="text"))
        socket.send(message("add_tag", run, tag_name=long))
        socket.send(message("set_run_property", run, experiment=long))
        socket.send(message("add_tag", run, tag_name="short"))

        assert_goes_on(socket, rest, run)

    info = rest.info(run)
    assert info["params"]["long"] == long
    assert [trace["name"] for trace in info["traces"]["texts"]] == ["long text"]
    assert rest.lines(run) == {0: long}
    assert long in [record["message"] for record in rest.records(run)]
    assert rest.tags(run) == {"short"}


def test_a_param_that_was_a_value_becomes_a_tree_when_the_later_write_says_so(server: MatyanServer, rest: Rest) -> None:
    run = "conflict"
    with RawWriter(server.websocket_url, run) as socket:
        socket.send(create(run), message("log_hparams", run, value={"a": 1}))
        socket.send(message("log_hparams", run, value={"a": {"b": 2}}))

        assert_goes_on(socket, rest, run)

    assert rest.info(run)["params"] == {"a": {"b": 2}}


@pytest.mark.slow
def test_a_hundred_thousand_sequences_fit_in_one_run(server: MatyanServer, rest: Rest) -> None:
    run = "wide"
    messages = [metric(run, f"metric/{number:06d}", float(number), 0) for number in range(SEQUENCES)]
    with RawWriter(server.websocket_url, run) as socket:
        socket.send(create(run))
        for frame in frames(messages):
            assert socket.send_text(frame)["status"] == "ok"
        socket.send(message("add_tag", run, tag_name="all of it"))
    query = f"run.hash == '{run}'"
    eventually(lambda: rest.runs(query, exclude_traces=True)[run]["props"]["tags"], bool, seconds=120)

    traces = rest.runs(query)[run]["traces"]["metric"]
    found = {trace["name"]: trace["values"]["last"] for trace in traces}
    assert found == {item["name"]: item["value"] for item in messages}
    last = f"metric/{SEQUENCES - 1:06d}"
    assert [*rest.metrics(run, f"metric.name == '{last}'")] == [(last, NO_CONTEXT)]


@pytest.mark.parametrize("run", ["progress", "progress_0", "x" * 257])
def test_a_run_id_that_readers_could_not_bear_is_refused(server: MatyanServer, rest: Rest, run: str) -> None:
    statuses = []
    try:
        with RawWriter(server.websocket_url, run) as socket:
            statuses.append(socket.send(create(run))["status"])
    except InvalidStatus as error:
        statuses.append("error" if 400 <= error.response.status_code < 500 else "retried for ever")
    except WebSocketException:
        statuses.append("closed without a word")

    assert statuses == ["error"]
    assert run not in rest.runs(exclude_traces=True)


def test_two_writers_on_one_run_do_not_disturb_each_other(server: MatyanServer, rest: Rest) -> None:
    run = "shared"
    with RawWriter(server.websocket_url, run) as one, RawWriter(server.websocket_url, run) as two:
        for step in range(50):
            one.send(metric(run, "one", step / 2, step))
            two.send(metric(run, "two", step / 3, step))
        two.send_text("{broken")
        assert_goes_on(one, rest, run)

    assert eventually(lambda: values(rest, run, "two"), lambda found: len(found) == 50) == {
        step: step / 3 for step in range(50)
    }
    assert values(rest, run, "one") == {step: step / 2 for step in range(50)}


def test_data_without_create_run_makes_the_run(server: MatyanServer, rest: Rest) -> None:
    with RawWriter(server.websocket_url, "implicit") as socket:
        assert_goes_on(socket, rest, "implicit")

    assert rest.info("implicit")["props"]["name"] == "Run: implicit"


def test_a_frame_sent_again_at_once_is_applied_once(server: MatyanServer, rest: Rest) -> None:
    run = "repeated"
    frame = json.dumps([metric(run, "counted", 1.0, None), metric(run, "counted", 2.0, None)])
    with RawWriter(server.websocket_url, run) as socket:
        for _ in range(3):
            assert socket.send_text(frame)["status"] == "ok"

        assert_goes_on(socket, rest, run)

    assert values(rest, run, "counted") == {0: 1.0, 1: 2.0}
