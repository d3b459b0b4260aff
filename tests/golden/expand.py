"""Expand the abstract dataset (dataset.json) into explicit runs.

Pure Python, no dependence on any tracker. Every value comes from integer arithmetic or one IEEE-754 operation per step,
so any language gives the same bits.

    for run in load(path)["runs"]:
        for sequence in run["sequences"]:
            for point in sequence["points"]:  # in the order of tracking
"""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Spec = Mapping[str, Any]
M32: Final = 0xFFFFFFFF


def u32(seed: int, index: int) -> int:
    """Integer hash -> 0 .. 2**32-1 (xorshift-multiply, 32-bit wrap-around)."""
    x = (seed * 2654435761 + index * 2246822519 + 374761393) & M32
    x ^= x >> 15
    x = (x * 2246822519) & M32
    x ^= x >> 13
    x = (x * 3266489917) & M32
    x ^= x >> 16
    return x


def u01(seed: int, index: int) -> float:
    """Uniform double in [0, 1): exact, u32 / 2**32."""
    return u32(seed, index) / 4294967296.0


TYPED: Final[Mapping[str, Callable[[Spec], Any]]] = {
    "nan": lambda _: math.nan,
    "inf": lambda _: math.inf,
    "-inf": lambda _: -math.inf,
    "tuple": lambda spec: tuple(map(typed, spec["v"])),
    # Keys that JSON objects cannot hold (integers).
    "map": lambda spec: {typed(key): typed(value) for key, value in spec["v"]},
    "repeat": lambda spec: spec["v"] * spec["n"],
}


def typed(value: Any) -> Any:
    """Decode the typed JSON notation used for params, contexts and values."""
    if isinstance(value, dict):
        if "$" in value:
            return TYPED[value["$"]](value)
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else value


STEPS: Final[Mapping[str, Callable[[Spec], list[int]]]] = {
    "range": lambda spec: [spec["start"] + spec["stride"] * i for i in range(spec["count"])],
    "list": lambda spec: list(spec["v"]),
    "square": lambda spec: [spec["start"] + i * i for i in range(spec["count"])],
    "pow2": lambda spec: [spec["start"] + (1 << i) for i in range(spec["count"])],
    # The client counts; equals 0..count-1.
    "auto": lambda spec: list(range(spec["count"])),
}

SCALARS: Final[Mapping[str, Callable[[Spec, int], Any]]] = {
    "lin": lambda spec, i: spec["a"] + spec["b"] * i,
    "decay": lambda spec, i: spec["a"] / (1.0 + spec["b"] * i) + spec.get("c", 0.0),
    "noise": lambda spec, i: spec["lo"] + (spec["hi"] - spec["lo"]) * u01(spec["seed"], i),
    "mod": lambda spec, i: (spec["a"] + spec["b"] * i) % spec["m"],
    "const": lambda spec, _: typed(spec["v"]),
    "list": lambda spec, i: typed(spec["v"][i]),
}


def png(width: int, height: int, seed: int) -> bytes:
    """RGB PNG with a stored (uncompressed) deflate stream: deterministic bytes.

    pixel(x, y) = (u32(seed, 3*(y*width+x)+c) >> 24) for c in 0, 1, 2
    """
    raw = bytearray()
    for y in range(height):
        raw.append(0)
        raw += bytes(u32(seed, 3 * (y * width + x) + c) >> 24 for x in range(width) for c in range(3))
    assert len(raw) < 65536
    stream = b"\x78\x01" + b"\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + bytes(raw)
    stream += struct.pack(">I", zlib.adler32(bytes(raw)) & M32)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) & M32)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def wav(samples: int, rate: int, seed: int) -> bytes:
    """Mono 8-bit PCM WAV, sample i = u32(seed, i) >> 24."""
    data = bytes(u32(seed, i) >> 24 for i in range(samples))
    pad = b"\0" if samples % 2 else b""
    form = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", samples) + data + pad
    return b"RIFF" + struct.pack("<I", len(body)) + body


def figure_json(seed: int, title: str) -> str:
    """Plotly figure JSON text (exact characters)."""
    xs = ",".join(str(i) for i in range(4))
    ys = ",".join(str(u32(seed, i) % 100) for i in range(4))
    return (
        '{"data":[{"mode":"lines","x":['
        + xs
        + '],"y":['
        + ys
        + '],"type":"scatter"}],"layout":{"title":{"text":'
        + json.dumps(title)
        + "}}}"
    )


def image(spec: Spec, blobs: Spec) -> dict[str, Any]:
    generated = "blob" not in spec
    data = png(spec["w"], spec["h"], spec["seed"]) if generated else base64.b64decode(blobs[spec["blob"]])
    return {
        "type": "image",
        "data": data,
        "format": spec.get("format", "png"),
        "caption": spec.get("caption", ""),
        "width": spec["w"],
        "height": spec["h"],
    }


def audio(spec: Spec, _: Spec) -> dict[str, Any]:
    data = bytes.fromhex(spec["raw"]) if "raw" in spec else wav(spec["n"], spec.get("rate", 8000), spec["seed"])
    return {"type": "audio", "data": data, "format": spec.get("format", "wav"), "caption": spec.get("caption", "")}


def distribution(spec: Spec, _: Spec) -> dict[str, Any]:
    bins, is_int = spec["bins"], spec["dtype"] == "int64"
    weights = [u32(spec["seed"], i) % 50 if is_int else u01(spec["seed"], i) for i in range(bins)]
    return {
        "type": "distribution",
        "weights": weights,
        "data": struct.pack(f"<{bins}{'q' if is_int else 'd'}", *weights),
        "dtype": spec["dtype"],
        "bin_count": bins,
        "range": [float(spec["range"][0]), float(spec["range"][1])],
    }


def figure(spec: Spec, _: Spec) -> dict[str, Any]:
    return {
        "type": "figure",
        "data": figure_json(spec["seed"], spec["title"]),
        "source": "plotly",
        "version": spec.get("version", "5.22.0"),
        "format": "raw_json",
    }


OBJECTS: Final[Mapping[str, Callable[[Spec, Spec], dict[str, Any]]]] = {
    "image": image,
    "audio": audio,
    "text": lambda spec, _: {"type": "text", "data": typed(spec["data"])},
    "distribution": distribution,
    "figure": figure,
}


def make_object(spec: Spec, blobs: Spec) -> dict[str, Any]:
    """Make one media object: a dict with explicit fields (bytes, str, lists)."""
    return OBJECTS[spec["kind"]](spec, blobs)


def generated_objects(spec: Spec, index: int, blobs: Spec) -> list[dict[str, Any]]:
    """Make the objects of point `index` from a template."""
    made = []
    for j in range(spec["counts"][index % len(spec["counts"])]):
        template = dict(spec["template"])
        template["seed"] = template.get("seed", 0) + 1000 * index + j
        for field in ("caption", "title"):
            if field in template:
                template[field] = template[field].replace("{i}", str(index)).replace("{j}", str(j))
        if template["kind"] == "text":
            template["data"] = template["data"].replace("{i}", str(index)).replace("{j}", str(j))
        made.append(make_object(template, blobs))
    return made


def value(spec: Spec, index: int, blobs: Spec) -> Any:
    """Make the value of point `index`: a scalar, one object, or a list of objects."""
    if spec["kind"] == "objects":  # given explicitly
        given = spec["v"][index]
        return [make_object(one, blobs) for one in given] if isinstance(given, list) else make_object(given, blobs)
    if spec["kind"] == "objgen":
        made = generated_objects(spec, index, blobs)
        return made if spec["as_list"] else made[0]
    return SCALARS[spec["kind"]](spec, index)


@dataclass(frozen=True, slots=True)
class Point:
    """One tracked point; `time` in seconds since 1970-01-01 UTC, `auto` when the client counts the steps."""

    step: int
    value: Any
    epoch: int | None
    time: float
    auto: bool


def points(sequence: Spec, run: Spec, blobs: Spec) -> list[Point]:
    """Return the points of a sequence in the order of tracking."""
    overridden = {int(key): typed(item) for key, item in sequence.get("set", {}).items()}
    times = sequence.get("times", {"start": 1.0, "dt": 0.5})
    epochs = sequence.get("epochs")
    kind = sequence["steps"]["kind"]
    return [
        Point(
            step=step,
            value=overridden[i] if i in overridden else value(sequence["values"], i, blobs),
            epoch=None if epochs is None else epochs["start"] + i // epochs["every"],
            time=run["created_at"] + times["start"] + times["dt"] * i,
            auto=kind == "auto",
        )
        for i, step in enumerate(STEPS[kind](sequence["steps"]))
    ]


def lines(specs: list[Spec]) -> list[tuple[int, str]]:
    """Return the terminal lines: (step, text)."""
    made: list[tuple[int, str]] = []
    for part in specs:
        start = part["start"]
        if part["kind"] == "gen":
            made += ((n, part["text"].replace("{i}", str(n))) for n in range(start, start + part["count"]))
        else:
            made += enumerate(map(typed, part["v"]), start)
    return made


def records(specs: list[Spec], run: Spec) -> list[dict[str, Any]]:
    """Return the log records: dicts of step, message, level, timestamp, args."""
    made: list[dict[str, Any]] = []
    for part in specs:
        start = part["start"]
        if part["kind"] == "gen":
            given = [
                {
                    "message": part["text"].replace("{i}", str(start + i)),
                    "level": part["levels"][i % len(part["levels"])],
                }
                for i in range(part["count"])
            ]
        else:
            given = part["v"]
        made += (
            {
                "step": step,
                "message": record["message"],
                "level": record["level"],
                "timestamp": run["created_at"] + 0.25 * step,
                "args": typed(record.get("args")),
            }
            for step, record in enumerate(given, start)
        )
    return made


def load(path: str | Path) -> dict[str, Any]:
    """Return the dataset with explicit runs."""
    dataset: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    blobs = dataset.get("blobs", {})
    runs = []
    for abstract in dataset["runs"]:
        run = dict(abstract)
        run["params"] = typed(run.get("params", {}))
        run["sequences"] = [
            {
                "type": sequence["type"],
                "name": sequence["name"],
                "context": typed(sequence.get("context", {})),
                "points": points(sequence, abstract, blobs),
                "track_context_none": sequence.get("context") is None,
            }
            for sequence in abstract.get("sequences", [])
        ]
        run["log_lines"] = lines(run.get("logs", []))
        run["log_record_list"] = records(run.get("log_records", []), run)
        runs.append(run)
    return {**dataset, "runs": runs}
