"""Make an Aim repository of the golden dataset, with its fixed hashes, ids and times.

    python -m tests.golden.tools.fill_aim DATASET.json DIRECTORY

Everything goes through Aim's own SDK; only its clocks and its making of hashes are replaced, so that two fills hold the
same. Tested with Aim 3.17 to 3.29. The process ends without its usual farewell: unfinished runs must stay unfinished.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import aim
import numpy as np
from aim.ext.resource.log import LogLine
from aim.sdk import base_run, tracker
from aim.sdk import run as aim_run
from aim.sdk.index_manager import RepoIndexManager
from aim.storage.structured.db import DB
from aim.storage.types import BLOB
from PIL import Image

from tests.golden import expand

try:
    from aim.sdk.logging import LogRecord
except ImportError:  # before 3.18
    LogRecord = None
try:
    from aim.sdk.objects.artifact import Artifact
except ImportError:  # before 3.21
    Artifact = None

Spec = Mapping[str, Any]
LOGGER: Final = ("train.py", 10)
NOTE_SECONDS: Final = 1000.0
"""Note n is written so long, and n seconds, after the first experiment."""


class Clock:
    """What Aim takes for the time, and for the hash of the next run."""

    now = 0.0
    ends: float | None = 0.0
    run_hash = ""


def patch_aim() -> None:
    """Replace Aim's clocks and its making of hashes by `Clock`."""

    class Datetime:
        @staticmethod
        def now(_: object = None) -> SimpleNamespace:
            return SimpleNamespace(timestamp=lambda: Clock.now)

    def set_end(cleaner: Any) -> None:
        cleaner.meta_run_tree["end_time"] = Clock.ends

    tracker.datetime = SimpleNamespace(datetime=Datetime, timedelta=None)
    base_run.generate_run_hash = lambda *_, **__: Clock.run_hash
    aim_run.BasicRunAutoClean.set_run_end_time = set_end


class BaseFigure:
    """Looks like a figure of plotly to Aim."""

    def __init__(self, text: str) -> None:
        self._text = text

    def to_json(self) -> str:
        return self._text


BaseFigure.__module__ = "plotly.basedatatypes"


def make_image(spec: Spec) -> Any:
    made = aim.Image(Image.new("RGB", (spec["width"], spec["height"])), caption=spec["caption"], format=spec["format"])
    made.storage["data"] = BLOB(data=spec["data"])
    return made


def make_figure(spec: Spec) -> Any:
    made = aim.Figure(BaseFigure(spec["data"]))
    made.storage["version"] = spec["version"]
    return made


MAKERS: Final = {
    "image": make_image,
    "audio": lambda spec: aim.Audio(spec["data"], format=spec["format"], caption=spec["caption"]),
    "text": lambda spec: aim.Text(spec["data"]),
    "distribution": lambda spec: aim.Distribution(
        hist=np.frombuffer(spec["data"], dtype=spec["dtype"]), bin_range=tuple(spec["range"])
    ),
    "figure": make_figure,
}


def make_value(value: Any, kind: str) -> Any:
    if kind == "metric":
        return value
    return [MAKERS[each["type"]](each) for each in value] if isinstance(value, list) else MAKERS[value["type"]](value)


def fill_catalog(repo: Any, dataset: Spec) -> None:
    with repo.structured_db as db:
        for spec in dataset["experiments"]:
            experiment = db.create_experiment(spec["name"])
            set_present(experiment, spec, ("description",))
            for text in spec.get("notes", []):
                experiment.add_note(text)
        for spec in dataset["tags"]:
            set_present(db.create_tag(spec["name"]), spec, ("color", "description"))


def set_present(entity: Any, spec: Spec, names: tuple[str, ...]) -> None:
    for name in names:
        if spec[name] is not None:
            setattr(entity, name, spec[name])
    if spec["archived"]:
        entity.archived = True


def fill_run(repo: Any, spec: Spec) -> Any:
    """Log one run; return it when it must stay unfinished."""
    Clock.now, Clock.run_hash, Clock.ends = spec["created_at"], spec["hash"], spec["end_time"]
    run = aim.Run(
        repo=repo,
        experiment=spec["experiment"],
        system_tracking_interval=None,
        log_system_params=False,
        capture_terminal_logs=False,
    )
    assert run.hash == spec["hash"]
    set_present(run, {**spec, "archived": False}, ("name", "description"))
    for key, value in spec["params"].items():
        run[key] = value
    for tag in spec["tags"]:
        run.add_tag(tag)
    fill_sequences(run, spec)
    fill_logs(run, spec)
    for note in spec.get("notes", []):
        run.props.add_note(note)
    if spec["archived"]:
        run.archived = True
    if spec["end_time"] is None:
        return run
    run.close()
    return None


def fill_sequences(run: Any, spec: Spec) -> None:
    for sequence in spec["sequences"]:
        context = None if sequence["track_context_none"] else sequence["context"]
        for point in sequence["points"]:
            Clock.now = point.time
            step = None if point.auto else point.step
            value = make_value(point.value, sequence["type"])
            run._tracker(value, sequence["name"], step, point.epoch, context=context)


def fill_logs(run: Any, spec: Spec) -> None:
    for number, text in spec["log_lines"]:
        run._tracker(LogLine(text), "logs", number)
    for record in spec["log_record_list"] if LogRecord else ():
        found = LogRecord(
            record["message"],
            record["level"],
            timestamp=record["timestamp"],
            logger_info=LOGGER,
            **(record["args"] or {}),
        )
        run._tracker(found, "__log_records", record["step"])
    for each in spec.get("artifacts", []) if Artifact else ():
        uri = f"{each['base_uri']}/{spec['hash']}"
        run.meta_run_tree.subtree("artifacts")[each["name"]] = Artifact(each["path"], uri=uri, name=each["name"])


def index(repo: Any, dataset: Spec, home: Path) -> None:
    """Index every run in order, and leave those in progress as a living process would."""
    manager = RepoIndexManager.get_index_manager(repo)
    for spec in dataset["runs"]:
        manager.index(spec["hash"])
    repo.container_pool.clear()
    for place in (home / "meta" / "progress", home / "check_ins"):
        place.mkdir(parents=True, exist_ok=True)
        for file in place.iterdir():
            file.unlink()
    for spec in dataset["runs"]:
        if spec.get("progress"):
            (home / "meta" / "progress" / spec["hash"]).touch()


def fix_catalog(path: Path, dataset: Spec) -> None:
    """Set ids and times of the database."""
    with sqlite3.connect(path) as connection:
        for table in ("experiment", "tag"):
            for spec in dataset[f"{table}s"]:
                when = moment(spec["created_at"])
                values = (spec["id"], when, when, spec["name"])
                connection.execute(f"UPDATE {table} SET uuid=?, created_at=?, updated_at=? WHERE name=?", values)
        for spec in dataset["runs"]:
            when = moment(spec["created_at"])
            connection.execute("UPDATE run SET created_at=?, updated_at=? WHERE hash=?", (when, when, spec["hash"]))
        first = dataset["experiments"][0]["created_at"]
        for (number,) in connection.execute("SELECT id FROM note ORDER BY id").fetchall():
            when = moment(first + NOTE_SECONDS + number)
            connection.execute("UPDATE note SET created_at=?, updated_at=? WHERE id=?", (when, when, number))


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def main() -> None:
    dataset = expand.load(Path(sys.argv[1]))
    root = Path(sys.argv[2])
    root.mkdir(parents=True, exist_ok=True)
    patch_aim()
    create = DB.create_run
    DB.create_run = lambda db, run_hash, *_, **__: create(
        db, run_hash, datetime.fromtimestamp(Clock.now, UTC).replace(tzinfo=None)
    )
    repo = aim.Repo.from_path(str(root), init=True)
    fill_catalog(repo, dataset)
    unfinished = [run for spec in dataset["runs"] if (run := fill_run(repo, spec)) is not None]
    for run in unfinished:
        run._heartbeat.stop()
    index(repo, dataset, root / ".aim")
    fix_catalog(root / ".aim" / "run_metadata.sqlite", dataset)
    print(f"filled {root} with {len(dataset['runs'])} runs", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
