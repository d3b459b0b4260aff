"""Frames as clients send them, odd ones included: what is taken, what is refused, and that nothing else suffers."""

from __future__ import annotations

import json
import math
import struct
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from matyan.errors import CorruptedError, InvalidArgumentError
from matyan.limits import (
    ARTIFACT_PATH_BYTES_MAX,
    CONTEXT_BYTES_MAX,
    FRAME_BYTES_MAX,
    FRAME_ITEMS_MAX,
    JSON_DEPTH_MAX,
    LABEL_BYTES_MAX,
    SEQUENCE_NAME_BYTES_MAX,
)
from matyan.wire import frames
from matyan.wire.frames import decode_frame, decode_payload, encode_commands, encode_payload
from matyan.wire.messages import (
    AddTag,
    BlobRef,
    Command,
    CreateRun,
    LogCustomObject,
    LogHparams,
    LogMetric,
    LogRecordMessage,
    LogTerminalLine,
    SetRunProperty,
)

INGEST = Path(__file__).parents[2] / "golden" / "ingest"
CAPTURES = sorted(INGEST.glob("*.jsonl"))
METRIC = {
    "type": "log_metric",
    "run_id": "r",
    "name": "loss",
    "value": 0.5,
    "step": 3,
    "epoch": 1,
    "context": {"subset": "train"},
    "dtype": "float",
    "client_datetime": "2026-11-21T03:49:23.327990+00:00",
}


def metric(**members: Any) -> dict[str, Any]:
    return METRIC | members


def one(item: dict[str, Any] | str) -> Any:
    """Return the one command that a frame of this item is taken for."""
    frame = decode_frame(item if isinstance(item, str) else json.dumps(item))
    assert frame.refusals == []
    (command,) = frame.commands
    return command


def refusal(item: object) -> str:
    """Return why this item is refused, having seen that its neighbours are not."""
    text = item if isinstance(item, str) else json.dumps(item)
    good = json.dumps(METRIC)
    frame = decode_frame(f"[{good}, {text}, {good}]")
    assert len(frame.commands) == 2
    (found,) = frame.refusals
    assert found.index == 1
    return found.reason


def through_the_log(text: str) -> list[Command]:
    """Return the commands that a worker gets from this frame."""
    frame = decode_frame(text)
    commands, bad = decode_payload(*encode_payload(text.encode(), frame))
    assert bad == []
    return commands


def same(one: Any, other: Any) -> bool:
    """Compare with NaN equal to NaN, -0.0 different from 0.0 and contexts by their JSON."""
    return repr(plain(one)) == repr(plain(other))


def plain(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return json.loads(bytes(value))
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


# ---- what the real client sends


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_every_captured_frame_is_taken_and_comes_out_of_the_log_unchanged(capture: Path) -> None:
    records = [json.loads(line) for line in capture.read_text().splitlines()]
    texts = [record["raw"] for record in records if record.get("ev") == "c2s"]
    assert texts

    for text in texts:
        sent = json.loads(text)
        items = sent if isinstance(sent, list) else [sent]
        frame = decode_frame(text)
        refused = [refusal.index for refusal in frame.refusals]

        assert refused == [index for index, item in enumerate(items) if item.get("step") == 1.5]
        assert len(frame.commands) + len(refused) == len(items)
        assert same(through_the_log(text), [*frame.commands])


def test_a_plain_frame_is_kept_as_it_came() -> None:
    text = json.dumps([METRIC, {"type": "finish_run", "run_id": "r"}])
    frame = decode_frame(text)

    assert frame.exact
    encoding, payload = encode_payload(text.encode(), frame)
    assert (encoding, zstandard.decompress(payload)) == ("json", text.encode())


@pytest.mark.parametrize("frame", ["[]", " [ ] "])
def test_an_empty_frame_holds_nothing(frame: str) -> None:
    assert decode_frame(frame) == ([], [], True, {})


# ---- frames as a whole


@pytest.mark.parametrize(
    "frame",
    ["", "hello", "5", "null", '"x"', "true", "[1,2", "{}{}", "[] x", b"\xff\xfe", b"\x00", "[" * 100_000, "{" * 2000],
)
def test_what_is_no_json_object_or_array_is_refused_as_a_whole(frame: str | bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        decode_frame(frame)


def test_a_frame_over_the_limit_is_refused_as_a_whole() -> None:
    with pytest.raises(InvalidArgumentError, match="limit"):
        decode_frame(b" " * (FRAME_BYTES_MAX + 1))


def test_items_beyond_the_limit_are_refused_in_one_word() -> None:
    item = '{"type":"add_tag","tag_name":"a"}'
    frame = decode_frame("[" + ",".join([item] * (FRAME_ITEMS_MAX + 5)) + "]")

    assert len(frame.commands) == FRAME_ITEMS_MAX
    (found,) = frame.refusals
    assert found.index == FRAME_ITEMS_MAX
    assert str(FRAME_ITEMS_MAX + 5) in found.reason
    assert frame.refused == {"too_many": 5}


def test_refused_items_are_counted_by_kind() -> None:
    long_name = json.dumps({"type": "log_metric", "name": "x" * 5000, "value": 1})

    frame = decode_frame(f'[1, {{"type": "no such"}}, {long_name}, {{"type": "add_tag", "tag_name": "a"}}]')

    assert frame.refused == {"unreadable": 2, "out_of_bounds": 1}


def test_a_flood_of_bad_items_makes_a_bounded_number_of_refusals() -> None:
    frame = decode_frame("[" + ",".join(["{}"] * 50_000) + "]")

    assert frame.commands == []
    assert len(frame.refusals) == frames.REFUSALS_MAX + 1
    assert frame.refused == {"unreadable": 50_000}
    assert "49000" in frame.refusals[-1].reason


# ---- odd values that are taken


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
        ("-1e999", -math.inf),
        ("-0.0", -0.0),
        ("5e-324", 5e-324),
        ('"0.5"', 0.5),
        ('" 1e3 "', 1000.0),
        ('"nan"', math.nan),
        ("true", 1.0),
        ("7", 7.0),
        (str(2**70), float(2**70)),
        ("1" + "0" * 400, math.inf),
        ("-1" + "0" * 5000, -math.inf),
    ],
)
def test_metric_values_are_kept_as_doubles(token: str, expected: float) -> None:
    text = json.dumps(metric(value=0)).replace('"value": 0', f'"value": {token}')

    (command,) = through_the_log(text)

    assert isinstance(command, LogMetric)
    assert struct.pack("<d", command.value) == struct.pack("<d", expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(1.0, 1), ("4", 4), (True, 1), (None, None), (-3, -3), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63))],
)
def test_whole_steps_are_integers_whatever_their_form(step: Any, expected: int | None) -> None:
    found = one(metric(step=step)).step

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("epoch", "expected"), [(0.25, 0.25), (None, None), (3, 3.0), ("0.5", 0.5)])
def test_epochs_may_have_fractions(epoch: Any, expected: float | None) -> None:
    assert one(metric(epoch=epoch)).epoch == expected


@pytest.mark.parametrize(
    ("given_moment", "expected"),
    [
        ("2026-11-21T03:40:44.880827+00:00", datetime(2026, 11, 21, 3, 40, 44, 880827, UTC)),
        ("2026-11-21T03:40:44Z", datetime(2026, 11, 21, 3, 40, 44, 0, UTC)),
        ("2026-11-21T03:40:44", datetime(2026, 11, 21, 3, 40, 44, 0, UTC)),
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        (1795232488.5, 1795232488.5),
        (1795232488, 1795232488.0),
        (1795232488500, 1795232488.5),
        ("1795232488.5", 1795232488.5),
        ("yesterday", None),
        (None, None),
        ([1], None),
        (1e300, None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_client_times_are_taken_in_every_form_and_dropped_when_unreadable(given_moment: Any, expected: Any) -> None:
    assert one(metric(client_datetime=given_moment)).client_datetime == expected
    assert one({"type": "create_run", "client_datetime": given_moment}).client_datetime == expected


def test_a_metric_needs_no_more_than_a_name_and_a_value() -> None:
    assert one({"type": "log_metric", "name": "a", "value": 1, "new_member": {}}).step is None


def test_names_and_labels_may_be_empty() -> None:
    assert one(metric(name="")).name == ""
    assert one({"type": "set_run_property", "experiment": ""}).experiment == ""


def test_lone_surrogates_are_replaced_and_pairs_and_escaped_backslashes_are_not() -> None:
    text = r'{"type": "log_hparams", "value": {"a\ud800": "\\ud800 \ud83d\ude00 \udc00\uDBFF"}}'

    assert through_the_log(text) == [LogHparams({"a\ufffd": "\\ud800 \U0001f600 \ufffd\ufffd"})]


def test_a_lone_surrogate_in_a_context_is_replaced_too() -> None:
    command = one(json.dumps(metric(context={"a": 1})).replace('{"a": 1}', r'{"a": "\ud800"}'))

    assert json.loads(bytes(command.context)) == {"a": "\ufffd"}


@pytest.mark.parametrize("big", [2**63, 2**64, -(2**63) - 1, 2**70, 10**4000])
def test_integers_of_any_size_in_params_are_kept(big: int) -> None:
    for other in (1, math.nan):
        (command,) = through_the_log(json.dumps({"type": "log_hparams", "value": {"a": [{"b": big}, other]}}))

        assert isinstance(command, LogHparams)
        assert command.value["a"][0]["b"] == big


def test_an_integer_that_python_would_not_convert_is_kept_as_text() -> None:
    digits = "9" * 5000

    assert one(hparams(f'{{"a": {digits}}}')).value == {"a": digits}


def test_nan_in_params_and_contexts_is_kept() -> None:
    (params,) = through_the_log('{"type": "log_hparams", "value": {"a": [NaN, -Infinity], "b": -0.0}}')
    assert same(params, LogHparams({"a": [math.nan, -math.inf], "b": -0.0}))

    (point,) = through_the_log(json.dumps(metric(context={"x": math.nan})))
    assert isinstance(point, LogMetric)
    assert bytes(point.context) == b'{"x": NaN}'


@pytest.mark.parametrize("context", [{}, None, {"a": [1, {"b": None}], "\u00e4": 0.1}])
@pytest.mark.parametrize("value", [1.0, math.nan])
def test_contexts_come_out_of_the_log_as_json_text(context: Any, value: float) -> None:
    (command,) = through_the_log(json.dumps(metric(context=context, value=value)))

    assert isinstance(command, LogMetric)
    assert json.loads(bytes(command.context)) == context


def test_a_metric_with_an_object_is_an_object() -> None:
    text = {"type": "text", "data": "x"}
    for item in (
        metric(value=text, dtype="text"),
        metric(value=[text], dtype="text"),
        metric(value=text, dtype="texts"),
    ):
        command = one(item)
        assert isinstance(command, LogCustomObject)
        assert (command.value, command.step, command.dtype) == (item["value"], 3, item["dtype"])


def test_a_damaged_object_of_a_client_backup_stays_a_metric() -> None:
    assert one(metric(value=0, dtype="image")) == one(metric(value=0.0, dtype="image"))


def test_logger_info_may_be_any_json() -> None:
    record = {"type": "log_record", "message": "m", "level": 20, "timestamp": 1.5}
    for info in ({"1": 266}, ["f.py", 1], None, 5, "x"):
        assert one(record | {"logger_info": info}).logger_info == info
    assert one(record | {"level": 20.0, "timestamp": "2.5"}) == LogRecordMessage("m", 20, 2.5)


def test_flags_and_nulls_of_properties() -> None:
    assert one({"type": "set_run_property"}) == SetRunProperty()
    assert one({"type": "set_run_property", "archived": 1, "name": None}) == SetRunProperty(archived=True)
    assert one({"type": "create_run", "force_resume": "true"}) == CreateRun(force_resume=True)


# ---- items that are refused, alone


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"type": "nonsense"}, "nonsense"),
        ({"name": "x"}, "type"),
        ({"type": ["log_metric"]}, "type"),
        (5, "a number"),
        (None, "null"),
        ([], "array"),
        ({"type": "log_metric", "name": "x"}, "value"),
        (metric(value=None), "value"),
        (metric(value="abc"), "abc"),
        (metric(value={"a": 1}), "object"),
        (metric(value=[1, 2]), "array"),
        (metric(name=5), "name"),
        (metric(step=1.5), "1.5"),
        (metric(step="x"), "x"),
        (metric(step=2**63), "64 bit"),
        (metric(step=math.inf), "inf"),
        (metric(step=math.nan), "nan"),
        (metric(context=[1]), "context"),
        (metric(context="x"), "context"),
        (metric(name="x" * (SEQUENCE_NAME_BYTES_MAX + 1)), str(SEQUENCE_NAME_BYTES_MAX)),
        (metric(name="\u00e4" * (SEQUENCE_NAME_BYTES_MAX // 2 + 1)), str(SEQUENCE_NAME_BYTES_MAX)),
        (metric(name="x" * 1_000_000), str(SEQUENCE_NAME_BYTES_MAX)),
        (metric(context={"x": "y" * CONTEXT_BYTES_MAX}), str(CONTEXT_BYTES_MAX)),
        (metric(dtype="x" * (LABEL_BYTES_MAX + 1)), "dtype"),
        ({"type": "set_run_property", "name": "x" * (LABEL_BYTES_MAX + 1)}, "run name"),
        ({"type": "set_run_property", "experiment": "x" * (LABEL_BYTES_MAX + 1)}, "experiment"),
        ({"type": "add_tag", "tag_name": "x" * (LABEL_BYTES_MAX + 1)}, "tag"),
        ({"type": "remove_tag", "tag_name": "x" * (LABEL_BYTES_MAX + 1)}, "tag"),
        ({"type": "add_tag"}, "tag_name"),
        ({"type": "log_hparams", "value": [1]}, "value"),
        ({"type": "log_hparams", "value": "x"}, "value"),
        ({"type": "log_custom_object", "name": "x", "value": "text"}, "value"),
        ({"type": "log_terminal_line", "line": "x", "step": None}, "step"),
        ({"type": "log_record", "message": "m", "level": 2**70, "timestamp": 1}, "64 bit"),
        ({"type": "log_record", "message": "m", "level": 20, "timestamp": math.nan}, "timestamp"),
        ({"type": "blob_ref", "s3_key": "k", "artifact_path": "x" * (ARTIFACT_PATH_BYTES_MAX + 1)}, "artifact path"),
    ],
)
def test_a_bad_item_is_refused_and_its_neighbours_are_not(item: Any, reason: str) -> None:
    assert reason in refusal(item)


def hparams(value: str) -> str:
    return f'{{"type":"log_hparams","value":{value}}}'


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 1, 900, 90_000])
def test_an_item_nested_too_deep_is_refused_alone(depth: int) -> None:
    assert "deeper" in refusal(hparams(nested(depth)))
    assert "deeper" in refusal(
        json.dumps(METRIC).replace('{"subset": "train"}', nested(depth)[: CONTEXT_BYTES_MAX * 99])
    )


def test_brackets_within_texts_do_not_count_as_depth() -> None:
    good = r'{"type":"log_terminal_line","line":"[[{,\"]]\\","step":0}'
    frame = decode_frame(f"[{good},{hparams(nested(90_000))}]")

    assert frame.commands == [LogTerminalLine('[[{,"]]\\', 0)]


def test_params_may_be_nested_to_the_limit() -> None:
    text = hparams(nested(JSON_DEPTH_MAX - 1))

    assert len(through_the_log(text)) == 1


def test_a_refusal_says_what_it_is_about() -> None:
    (found,) = decode_frame(json.dumps([metric(step=1.5, name="fine", context={"a": 1})])).refusals

    assert (found.index, found.type) == (0, "log_metric")
    assert "1.5" in found.reason
    assert json.loads(found.excerpt)["name"] == "fine"
    assert len(decode_frame(json.dumps(["x" * 100_000])).refusals[0].excerpt) < 1000


# ---- payloads


def test_every_type_of_command_goes_through_msgpack() -> None:
    commands: list[Command] = [
        CreateRun(datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), True),
        SetRunProperty(name="n", archived=False),
        LogHparams({"a": {"b": [1, None, 2.5, 2**65]}}),
        one(metric(value=math.nan)),
        LogCustomObject("t", [{"type": "text", "data": 2**65}], context=msgspec.Raw(b'{"a": [1]}')),
        AddTag("x"),
        LogTerminalLine("l", -5),
        LogRecordMessage("m", 20, 1.5, ["f", 2**65], {"a": -(2**65)}),
        BlobRef("k", "p"),
    ]

    assert same(decode_payload("msgpack", encode_commands(commands)), (commands, []))


def test_one_unknown_command_of_a_payload_costs_only_itself() -> None:
    good, strange = {"type": "add_tag", "tag_name": "a"}, {"type": "from_the_future"}
    for encoding, data in (
        ("json", json.dumps([good, strange, good]).encode()),
        ("msgpack", msgspec.msgpack.encode([good, strange, good])),
    ):
        commands, bad = decode_payload(encoding, zstandard.compress(data))

        assert commands == [AddTag("a"), AddTag("a")]
        assert [index for index, _ in bad] == [1]


@pytest.mark.parametrize(
    ("encoding", "payload"),
    [
        ("json", b""),
        ("json", b"garbage"),
        ("json", zstandard.compress(b"not json")),
        ("msgpack", zstandard.compress(b"\xc1")),
        ("msgpack", zstandard.compress(msgspec.msgpack.encode(5))),
        ("morse", zstandard.compress(b"[]")),
        ("json", zstandard.compress(b"[{}]")[:-1]),
    ],
)
def test_a_payload_that_is_none_is_corrupted(encoding: str, payload: bytes) -> None:
    with pytest.raises(CorruptedError):
        decode_payload(encoding, payload)


@pytest.mark.parametrize("write_size", [True, False])
def test_a_payload_that_blows_up_is_refused(write_size: bool) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=write_size).compress(bytes(4 * FRAME_BYTES_MAX + 1))

    with pytest.raises(CorruptedError):
        decode_payload("json", bomb)


# ---- tables


@pytest.mark.parametrize(
    "odd",
    [
        {"dtype": "d" * (LABEL_BYTES_MAX + 1)},
        {"name": "n" * (SEQUENCE_NAME_BYTES_MAX + 1)},
        {"context": [1]},
        {"context": {"subset": "s" * CONTEXT_BYTES_MAX}},
    ],
    ids="-".join,
)
@pytest.mark.parametrize("at", [0, 1, 17, 39])
def test_an_odd_point_of_a_table_is_refused_and_the_others_are_kept(odd: dict[str, Any], at: int) -> None:
    points = [metric(name=f"m{index % 4}", step=index) for index in range(40)]
    points[at] |= odd
    frame = decode_frame(json.dumps(points))

    assert [refusal.index for refusal in frame.refusals] == [at]
    assert [point.step for point in frame.commands if isinstance(point, LogMetric)] == [
        step for step in range(40) if step != at
    ]


@pytest.mark.parametrize("odd", [{"name": "n" * (SEQUENCE_NAME_BYTES_MAX + 1)}, {"context": 5}])
def test_a_column_of_a_table_that_is_odd_throughout_is_refused_and_the_others_are_kept(odd: dict[str, Any]) -> None:
    points = [metric(name=f"m{index % 4}", step=index) | (odd if index % 4 == 2 else {}) for index in range(40)]
    frame = decode_frame(json.dumps(points))

    assert [refusal.index for refusal in frame.refusals] == list(range(2, 40, 4))
    assert len(frame.commands) == 30


@pytest.mark.parametrize("odd", [{"client_datetime": 1e9}, {"dtype": "d" * LABEL_BYTES_MAX}])
def test_a_table_with_what_is_rare_but_right_is_taken_whole(odd: dict[str, Any]) -> None:
    text = json.dumps([metric(name=f"m{index % 4}", step=index) | odd for index in range(40)])
    frame = decode_frame(text)

    assert frame.exact
    assert same(through_the_log(text), [*frame.commands])


def test_a_time_of_a_table_that_is_none_is_left_out() -> None:
    points = [metric(name=f"m{index % 4}", step=index) for index in range(40)]
    points[17] |= {"client_datetime": 1e300}
    frame = decode_frame(json.dumps(points))
    times = [point.client_datetime for point in frame.commands if isinstance(point, LogMetric)]

    assert not frame.exact
    assert [index for index, time in enumerate(times) if time is None] == [17]


def test_threads_do_not_share_compressors() -> None:
    texts = [json.dumps([metric(step=step, name=f"m{number}") for step in range(100)]) for number in range(4)]
    found: list[bool] = []

    def work(text: str) -> None:
        expected = [*decode_frame(text).commands]
        found.append(all(through_the_log(text) == expected for _ in range(50)))

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert found == [True] * 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values))
def test_any_params_that_python_writes_come_out_of_the_log(params: dict[str, Any]) -> None:
    text = json.dumps({"type": "log_hparams", "value": params})

    commands = through_the_log(text)

    shown = json.dumps(params, ensure_ascii=False).encode("utf-8", "replace").decode()
    if "?" not in shown:  # no lone surrogates
        assert same(commands, [LogHparams(params)])
    assert len(commands) == 1


@given(st.lists(json_values, max_size=5) | json_values)
def test_no_json_makes_the_decoder_fail_in_an_unknown_way(frame: Any) -> None:
    try:
        found = decode_frame(json.dumps(frame))
    except InvalidArgumentError:
        assert not isinstance(frame, list | dict)
    else:
        assert len(found.commands) + len(found.refusals) == (len(frame) if isinstance(frame, list) else 1)


@given(st.dictionaries(st.sampled_from(sorted(METRIC)), json_values), st.sampled_from(["log_metric", "log_record"]))
def test_no_member_makes_the_decoder_fail_in_an_unknown_way(members: dict[str, Any], kind: str) -> None:
    text = json.dumps([metric(**members, type=kind) if "type" not in members else members])
    frame = decode_frame(text)

    assert len(frame.commands) + len(frame.refusals) == 1
    assert same(through_the_log(text), [*frame.commands])


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_without_utc_form_costs_its_frame_nothing(moment: str) -> None:
    odd = {"type": "log_metric", "name": "x", "value": math.nan, "step": 0, "client_datetime": moment}

    frame = decode_frame(json.dumps([odd, odd | {"step": 1, "client_datetime": None}]).encode())

    assert [command.step for command in frame.commands if isinstance(command, LogMetric)] == [0, 1]
    assert not frame.refusals
    assert len(decode_payload("msgpack", encode_commands(frame.commands))[0]) == 2
