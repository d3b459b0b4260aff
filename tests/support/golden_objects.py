"""The objects of the golden dataset in a store: images, texts, distributions, audios and figures, with their blobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matyan.blobs.service import blob_key
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT
from matyan.runs import repository as runs
from matyan.sequences import items
from matyan.sequences.model import BUCKET_OF_WORD, Bucket, Item, SequenceKey, canonical_context
from tests.golden import expand
from tests.support.dataset import GOLDEN

BLOB_FIELDS = {
    "image": ("type", "format", "caption", "width", "height"),
    "audio": ("type", "format", "caption"),
}


def fill_objects(kv: KvEngine, blobs: BlobEngine) -> None:
    """Store the items of every object sequence; runs and summaries are there (`golden_store.fill`)."""
    for run in expand.load(GOLDEN / "dataset.json")["runs"]:
        for sequence in run["sequences"]:
            if BUCKET_OF_WORD[sequence["type"]] != Bucket.METRIC:
                kv.write(lambda tx, run=run, sequence=sequence: _put(tx, blobs, run["hash"], sequence))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults


def _put(tx: KvTransaction, blobs: BlobEngine, run_id: str, sequence: Mapping[str, Any]) -> None:
    number = runs.get_number(tx, DEFAULT_PROJECT, run_id)  # type: ignore[arg-type]  # a text is a run id here
    assert number is not None
    key = SequenceKey(BUCKET_OF_WORD[sequence["type"]], sequence["name"], canonical_context(dict(sequence["context"])))
    for point in sequence["points"]:
        single = not isinstance(point.value, list)
        objects = [point.value] if single else point.value
        place = f"seq/{key.name}/{key.digest().hex()}/{point.step}"
        stored = [_stored(blobs, run_id, f"{place}/{index}", each) for index, each in enumerate(objects)]
        item = Item(stored, point.epoch, round(point.time * 1000), single)
        items.put(tx, DEFAULT_PROJECT, number, key, point.step, items.encode(item))


def _stored(blobs: BlobEngine, run_id: str, path: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as clients send it: bytes are uploaded and named, weights are numbers."""
    kind = found["type"]
    if kind == "distribution":
        return {"type": kind, "bin_count": found["bin_count"], "range": found["range"], "data": found["weights"]}
    if kind not in BLOB_FIELDS:
        return dict(found)
    blobs.put(blob_key(DEFAULT_PROJECT, run_id, path), [found["data"]], content_type=f"{kind}/{found['format']}")
    return {**{name: found[name] for name in BLOB_FIELDS[kind]}, "s3_key": f"{run_id}/{path}"}
