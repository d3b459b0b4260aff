"""The golden dataset in a store, written through the repositories that the product uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.catalog.notes import Owner, experiment_notes, run_notes
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.runs import repository as runs
from matyan.runs.logs import LINES, RECORDS
from matyan.runs.model import Artifact, RunDocument
from matyan.sequences import items
from matyan.sequences import repository as sequences
from matyan.sequences.model import Item, SequenceKey, Summary
from matyan.wire.codec import encode_tree
from tests.golden import expand
from tests.support.dataset import GOLDEN, GoldenRun, golden_runs


def fill(kv: KvEngine) -> None:
    """Store experiments, tags, notes, and runs with their summaries, terminal lines and log records, but no points."""
    dataset = expand.load(GOLDEN / "dataset.json")
    kv.write(lambda tx: _put_catalog(tx, dataset))
    abstract = {each["hash"]: each for each in dataset["runs"]}
    for golden in reversed(golden_runs()):
        kv.write(lambda tx, golden=golden: _put_run(tx, golden, abstract[golden.run.hash]))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    kv.write(lambda tx: _put_notes(tx, dataset))


def _put_catalog(tx: KvTransaction, dataset: Mapping[str, Any]) -> None:
    for each in dataset["experiments"]:
        known = {field: each[field] for field in ("id", "name", "description", "archived")}
        catalog.experiments.put(tx, DEFAULT_PROJECT, Experiment(created_at_seconds=each["created_at"], **known))
    for each in dataset["tags"]:
        known = {field: each[field] for field in ("id", "name", "color", "description", "archived")}
        catalog.tags.put(tx, DEFAULT_PROJECT, Tag(created_at_seconds=each["created_at"], **known))


def _put_run(tx: KvTransaction, golden: GoldenRun, abstract: Mapping[str, Any]) -> None:
    document: RunDocument = golden.run.document
    document.artifacts = tuple(
        Artifact(each["name"], f"{each['base_uri']}/{document.hash}/{each['name']}")
        for each in abstract.get("artifacts", ())
    )
    number = runs.create(tx, DEFAULT_PROJECT, document)
    if document.has_system_params:
        system = encode_tree(golden.run.params["__system_params"])
        runs.put_system_params(tx, DEFAULT_PROJECT, number, system)
    assert document.experiment_id is not None
    catalog.experiments.link(tx, DEFAULT_PROJECT, document.experiment_id, document.place(number))
    for tag_id in document.tag_ids:
        catalog.tags.link(tx, DEFAULT_PROJECT, tag_id, document.place(number))
    for summary in golden.summaries:
        sequences.put_summary(tx, DEFAULT_PROJECT, number, summary, is_settled=True)
    put_items(tx, number, LINES, [Item(text) for _, text in abstract["log_lines"]])
    put_items(
        tx,
        number,
        RECORDS,
        [
            Item(
                {
                    "message": record["message"],
                    "log_level": record["level"],
                    "timestamp": record["timestamp"],
                    "args": record["args"],
                    "logger_info": None,
                }
            )
            for record in abstract["log_record_list"]
        ],
    )


def put_items(tx: KvTransaction, number: RunNumber, key: SequenceKey, found: list[Item]) -> None:
    """Store items at the steps from 0, with their summary."""
    for step, item in enumerate(found):
        items.put(tx, DEFAULT_PROJECT, number, key, step, items.encode(item))
    if found:
        summary = Summary(
            bucket=int(key.bucket),
            name=key.name,
            context=key.context,
            dtype=key.name,
            count=len(found),
            last_step=len(found) - 1,
        )
        sequences.put_summary(tx, DEFAULT_PROJECT, number, summary)


def _put_notes(tx: KvTransaction, dataset: Mapping[str, Any]) -> None:
    """Number the notes from 1, those of experiments first; note n was written n seconds after a fixed moment."""
    written_at_seconds = dataset["experiments"][0]["created_at"] + 1000
    owners: list[tuple[Any, Owner, str]] = [
        (experiment_notes, each["id"], text) for each in dataset["experiments"] for text in each.get("notes", ())
    ]
    for each in dataset["runs"]:
        number = runs.get_number(tx, DEFAULT_PROJECT, each["hash"])
        assert number is not None
        owners += [(run_notes, number, text) for text in each.get("notes", ())]
    for n, (notes, owner, text) in enumerate(owners, 1):
        notes.create(tx, DEFAULT_PROJECT, owner, text, written_at_seconds + n)
