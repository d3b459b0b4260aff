"""What one process changes, the next search of another one sees: each has runs in memory of its own.

Two processes of the role `serve` share a store. Both answer searches, so that both hold all runs; then one of them
edits, or a worker writes, and the other is asked once, without waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.kafka import shared_broker
from tests.support.rest import Rest, eventually
from tests.support.roles import Installation, installed
from tests.support.s3 import S3Server
from tests.support.writer import RawWriter, create, message

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.slow]

RUNS = [f"run-{at}" for at in range(12)]


class Readers(NamedTuple):
    """The processes, and a client of each."""

    roles: Installation
    one: Rest
    other: Rest


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Readers]:
    with installed(tmp_path_factory.mktemp("roles") / "home", shared_broker(), s3_server) as roles:
        roles.start("serve-2")
        for run in RUNS:
            with RawWriter(roles["frontier"].websocket_url, run) as writer:
                writer.send(create(run), message("log_hparams", run, value={"lr": 1}))
        with Rest(roles["serve"].url) as one, Rest(roles["serve-2"].url) as other:
            eventually(lambda: one.runs("run.lr == 1"), lambda found: len(found) == len(RUNS))
            yield Readers(roles, one, other)


def both(readers: Readers, query: str) -> list[set[str]]:
    """Return what each process finds now."""
    return [set(rest.runs(query)) for rest in (readers.one, readers.other)]


def edit(rest: Rest, run: str, **body: Any) -> None:
    rest.send("PUT", f"/runs/{run}/", body)


def test_a_name_given_by_one_is_found_by_the_other_at_once(readers: Readers) -> None:
    assert both(readers, "run.lr == 1") == [set(RUNS)] * 2
    for count, run in enumerate(RUNS):
        writer, reader = (readers.one, readers.other)[:: 1 if count % 2 else -1]
        edit(writer, run, name=f"new {run}")

        assert set(reader.runs(f"run.name == 'new {run}'")) == {run}


def test_a_renamed_experiment_is_found_by_its_new_name_at_once(readers: Readers) -> None:
    edit(readers.one, RUNS[0], experiment="before")
    assert both(readers, "run.experiment == 'before'") == [{RUNS[0]}] * 2
    (experiment,) = [each for each in readers.one.get("/experiments/").json() if each["name"] == "before"]
    readers.other.send("PUT", f"/experiments/{experiment['id']}/", {"name": "after"})

    assert both(readers, "run.experiment == 'after'") == [{RUNS[0]}] * 2
    assert both(readers, "run.experiment == 'before'") == [set()] * 2


def test_params_that_a_worker_wrote_are_seen_by_both(readers: Readers) -> None:
    run = RUNS[1]
    assert both(readers, "run.lr == 2") == [set()] * 2
    with RawWriter(readers.roles["frontier"].websocket_url, run) as writer:
        writer.send(message("log_hparams", run, value={"lr": 2}))
    eventually(lambda: readers.one.info(run)["params"], lambda params: params == {"lr": 2})

    assert both(readers, "run.lr == 2") == [{run}] * 2


def test_a_run_deleted_by_one_is_gone_from_the_other_at_once(readers: Readers) -> None:
    run = RUNS[2]
    assert run in readers.other.runs()
    readers.one.send("DELETE", f"/runs/{run}/")

    assert run not in readers.other.runs()
