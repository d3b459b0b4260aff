"""Frames as matyan-client makes them: encoded before the clock starts, or one after another for as long as needed."""

from __future__ import annotations

import itertools
import json
import random
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

METRICS: Final = 10
POINTS_PER_FRAME: Final = 100
STEPS_PER_FRAME: Final = POINTS_PER_FRAME // METRICS
_BEGIN: Final = datetime(2026, 11, 21, tzinfo=UTC)


def float32(value: float) -> float:
    """Return the nearest float32 as a double: what `float(loss)` of a framework's tensor is."""
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return nearest


def frame_text(run: str, number: int, noise: random.Random) -> str:
    """Return frame `number` of a run: ten steps of ten metrics, a noisy falling float32 loss each."""
    messages = []
    for step in range(number * STEPS_PER_FRAME, (number + 1) * STEPS_PER_FRAME):
        for index in range(METRICS):
            moment = _BEGIN + timedelta(milliseconds=20 * step, microseconds=37 * index)
            messages.append(
                {
                    "type": "log_metric",
                    "run_id": run,
                    "name": f"metric_{index}",
                    "value": float32((0.1 + 2 / (1 + step / 200)) * noise.lognormvariate(0, 0.1)),
                    "step": step,
                    "epoch": step // 1000,
                    "context": {"subset": "train"},
                    "dtype": "float",
                    "client_datetime": moment.isoformat(),
                }
            )
    return json.dumps(messages)


def websocket_frame(text: str) -> bytes:
    """Wrap text as a client's WebSocket frame. The mask is zero: legal, and free for the writer."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        header = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    else:
        header = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
    return header + bytes(4) + payload


def encoded_frames(run: str, count: int, seed: int) -> list[bytes]:
    """Return `count` frames of a run, ready for the socket; the first one is preceded by `create_run`."""
    noise = random.Random(seed)
    return [create_frame(run), *(websocket_frame(frame_text(run, number, noise)) for number in range(count))]


def endless_frames(run: str, seed: int) -> Iterator[bytes]:
    """Yield frames of a run without end, made as they are asked for in a tenth of the time.

    Values come from a ring of 1,000; steps and times go on.
    """
    noise = random.Random(seed)
    ring = itertools.cycle([float32(noise.lognormvariate(0, 0.5)) for _ in range(1_000)])
    template = _template(run)
    yield create_frame(run)
    for number in itertools.count():
        steps = range(number * STEPS_PER_FRAME, (number + 1) * STEPS_PER_FRAME)
        places = ((step, (_BEGIN + timedelta(milliseconds=20 * step)).isoformat()) for step in steps)
        cells = ((next(ring), step, moment) for step, moment in places for _ in range(METRICS))
        yield websocket_frame(template % tuple(itertools.chain.from_iterable(cells)))


def create_frame(run: str) -> bytes:
    """Return the first frame of a run."""
    create = {"type": "create_run", "run_id": run, "client_datetime": _BEGIN.isoformat(), "force_resume": False}
    return websocket_frame(json.dumps(create))


def _template(run: str) -> str:
    """Return a frame with places for value, step and time of each point."""
    points = [
        f'{{"type": "log_metric", "run_id": "{run}", "name": "metric_{index}", "value": %r, "step": %d, "epoch": 0, '
        f'"context": {{"subset": "train"}}, "dtype": "float", "client_datetime": "%s"}}'
        for index in range(METRICS)
    ]
    return f"[{', '.join(points * STEPS_PER_FRAME)}]"
