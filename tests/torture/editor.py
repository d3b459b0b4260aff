"""Somebody who works with the runs through REST while they are written: deletes, archives, renames and tags them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from tests.support.rest import Rest
from tests.torture.checker import Edits, Finding
from tests.torture.patience import PatientRest
from tests.torture.stored import ALL_RUNS

PAUSE_SECONDS: Final = 0.7
WEIGHTS: Final = {"delete": 3, "rename": 2, "archive": 2, "tag": 2, "leave": 4}
_TRIES_PAUSE_SECONDS: Final = 0.5


class Editor:
    """Edits each run at most once, at some moment of its life, until it is sure that the edit was taken."""

    def __init__(self, api: str, seed: int) -> None:
        self._api = api
        self._noise = random.Random(f"editor {seed}")
        self._stop = threading.Event()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._pending: list[Callable[[Rest], None]] = []
        self.edits = Edits()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """End; the tracker must answer by now, so that an edit whose answer was lost can be made sure of."""
        self._stop.set()
        self._thread.join()
        with PatientRest(self._api) as rest:
            for edit in self._pending:
                edit(rest)

    def _work(self) -> None:
        with PatientRest(self._api) as rest:
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    self._turn(rest)
                except httpx.HTTPError:
                    self._stop.wait(_TRIES_PAUSE_SECONDS)

    def _turn(self, rest: Rest) -> None:
        """Finish what is pending, look at a dead run, then edit one run that is new."""
        while self._pending:
            self._pending[0](rest)
            self._pending.pop(0)
        self._look_at_the_dead(rest)
        listed = sorted(rest.runs(ALL_RUNS, exclude_params=True, exclude_traces=True, report_progress=False))
        for run in sorted(self.edits.deleted.intersection(listed)):
            self.edits.findings.append(Finding("undead", run, "a deleted run was in the listing"))
        if fresh := [run for run in listed if run not in self._seen]:
            self._edit(rest, self._noise.choice(fresh))

    def _look_at_the_dead(self, rest: Rest) -> None:
        if self.edits.deleted:
            run = self._noise.choice(sorted(self.edits.deleted))
            if rest.exists(run):
                self.edits.findings.append(Finding("undead", run, "a deleted run answered"))

    def _edit(self, rest: Rest, run: str) -> None:
        if not rest.info(run)["props"]["name"].startswith("name of"):
            return  # its own name is still under way, and would come after ours
        self._seen.add(run)
        kind = self._noise.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "leave":
            return
        self._pending.append(lambda again: EDITS[kind](again, run, self.edits))
        self._pending[0](rest)
        self._pending.pop(0)


def delete(rest: Rest, run: str, edits: Edits) -> None:
    """Delete a run; that it is gone already is as good."""
    try:
        rest.send("DELETE", f"/runs/{quote(run)}/")
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
    edits.deleted.add(run)


def rename(rest: Rest, run: str, edits: Edits) -> None:
    """Give a run another name."""
    _put(rest, run, edits, "name", f"renamed {run}")


def archive(rest: Rest, run: str, edits: Edits) -> None:
    """Archive a run."""
    _put(rest, run, edits, "archived", True)


def tag(rest: Rest, run: str, edits: Edits) -> None:
    """Give a run a tag that its writer never names."""
    rest.send("POST", f"/runs/{quote(run)}/tags/new/", {"tag_name": "by hand"})
    edits.writes.setdefault(run, {})["tag", "by hand"] = True


EDITS: Final[Mapping[str, Callable[[Rest, str, Edits], None]]] = {
    "delete": delete,
    "rename": rename,
    "archive": archive,
    "tag": tag,
}


def _put(rest: Rest, run: str, edits: Edits, name: str, value: Any) -> None:
    rest.send("PUT", f"/runs/{quote(run)}/", {name: value})
    edits.writes.setdefault(run, {})["property", name] = value
