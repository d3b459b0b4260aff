"""What raw writers send: a pure function of run and frame number."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any, Final

from tests.support.writer import create, message, metric, moment

EXPERIMENTS: Final = ("alpha", "beta", "gamma")
CONTEXTS: Final = (None, {"subset": "train"}, {"subset": "val", "fold": {"k": 3, "ids": [1, 2]}})
ODD_VALUES: Final = (float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308)
STEPS_PER_FRAME: Final = 4
SECONDS_PER_FRAME: Final = 0.25
"""Of the client clock."""
_REVISED_STEPS: Final = 40
_FIGURE_BYTES: Final = 700_000
"""Above what the store keeps inline: the worker writes a blob for it."""


def record_text(number: int) -> str:
    """Return the text of the one log record of a frame."""
    return f"frame {number}"


def line_text(number: int) -> str:
    """Return the one terminal line of a frame."""
    return f"line of frame {number}"


def file_path(number: int) -> str | None:
    """Return the path of the file that goes with a frame, if any; `seq/` holds pictures."""
    if number % 25 == 7:
        return f"seq/pictures/{number}.png"
    if number % 40 == 13:
        return f"models/weights {number}.bin"
    return None


def file_bytes(run: str, path: str) -> bytes:
    """Return the contents of a file."""
    noise = random.Random(f"{run}/{path}")
    return noise.randbytes(noise.randrange(1, 60_000))


def frame_messages(run: str, number: int) -> list[dict[str, Any]]:
    """Return frame `number` of a run, without the announcement of its file."""
    noise = random.Random(f"{run} {number}")
    seconds = number * SECONDS_PER_FRAME
    messages = list(_beginning(run)) if number == 0 else []
    messages += _points(run, number, noise, seconds)
    messages += _objects(run, number, noise, seconds)
    messages += _params_and_tags(run, number)
    messages.append(message("log_terminal_line", run, line=line_text(number), step=number))
    messages.append(message("log_record", run, message=record_text(number), level=20, timestamp=float(number)))
    return messages


def announcement(run: str, path: str) -> dict[str, Any]:
    """Return the message that follows an upload."""
    return message("blob_ref", run, s3_key=f"{run}/{path}", artifact_path=path, content_type="image/png")


def ending(run: str, number: int) -> list[dict[str, Any]]:
    """Return the last frame of a run."""
    record = message("log_record", run, message=record_text(number), level=20, timestamp=float(number))
    line = message("log_terminal_line", run, line=line_text(number), step=number)
    return [line, record, message("finish_run", run, client_datetime=moment(number * SECONDS_PER_FRAME))]


def _beginning(run: str) -> Iterator[dict[str, Any]]:
    yield create(run)
    yield message("set_run_property", run, name=f"name of {run}", experiment=EXPERIMENTS[_hash(run) % 3])


def _points(run: str, number: int, noise: random.Random, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield points of rising steps in several contexts, of steps counted by the tracker, and of revised steps."""
    for context in CONTEXTS:
        for step in range(number * STEPS_PER_FRAME, (number + 1) * STEPS_PER_FRAME):
            value = noise.choice(ODD_VALUES) if noise.random() < 0.05 else noise.lognormvariate(0, 1)
            epoch = None if context is None else step / 8
            yield metric(run, "loss", value, step, epoch=epoch, context=context, seconds=seconds)
    for part in (0.25, 0.75):
        yield metric(run, "counted", number + part, None, seconds=seconds)
    revised = number * 7 % _REVISED_STEPS - _REVISED_STEPS // 2
    yield metric(run, "revised", float(number), revised, seconds=seconds)


def _objects(run: str, number: int, noise: random.Random, seconds: float) -> Iterator[dict[str, Any]]:
    values: list[tuple[str, dict[str, Any]]] = [
        ("samples", {"type": "text", "data": f"{run}: text {number} 🚀 {noise.random()}"})
    ]
    if number % 5 == 2:
        weights = [noise.randrange(100) for _ in range(8)]
        values.append(("weights", {"type": "distribution", "bin_count": 8, "range": [-1.0, 1.0], "data": weights}))
    if number % 60 == 31:
        values.append(
            ("figure", {"type": "figure", "data": {"data": [], "note": noise.randbytes(_FIGURE_BYTES // 2).hex()}})
        )
    path = file_path(number)
    if path is not None and path.startswith("seq/"):
        picture = {"type": "image", "format": "PNG", "caption": f"{number}", "width": 1, "height": 1}
        values.append(("pictures", {**picture, "s3_key": f"{run}/{path}"}))
    for name, value in values:
        yield message(
            "log_custom_object",
            run,
            name=name,
            value=value,
            step=number,
            epoch=None,
            context=CONTEXTS[number % 2],
            dtype=value["type"],
            client_datetime=moment(seconds),
        )


def _params_and_tags(run: str, number: int) -> Iterator[dict[str, Any]]:
    yield message("log_hparams", run, value={"last": {"frame": number}})
    yield message("log_hparams", run, value={"slots": {f"slot {number % 9}": [number, {"of": run}]}})
    if number % 6 == 1:
        yield message("add_tag", run, tag_name=f"tag {number // 6 % 4}")
    if number % 6 == 4:
        yield message("remove_tag", run, tag_name=f"tag {number // 12 % 4}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
