"""One process with the released matyan-client: trains one run after the other until stdin ends.

    python -m tests.torture.client_writer SEED JOURNAL NUMBER LIFE_SECONDS API FRONTIER

The client is the released one; what its WebSocket sends and receives is written down on the way.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import httpx
from matyan_client import Distribution, Figure, Image, Run, Text
from websockets.asyncio.client import ClientConnection

from tests.torture import contents
from tests.torture.journal import Journal, digest

STEP_SECONDS: Final = (0.02, 0.2)
RETRY_SECONDS: Final = 1.0
_numbers: Final = itertools.count(1)


def listen(journal: Journal) -> None:
    """Write down every frame before it goes out, every reply, and the bytes of every upload."""
    send, receive, put = ClientConnection.send, ClientConnection.recv, httpx.put

    async def noted_send(connection: Any, message: Any, *args: Any, **options: Any) -> None:
        if not hasattr(connection, "torture_number"):
            connection.torture_number = next(_numbers)
        journal.add("send", connection.torture_number, message)
        await send(connection, message, *args, **options)

    async def noted_receive(connection: Any, *args: Any, **options: Any) -> Any:
        text = await receive(connection, *args, **options)
        reply = json.loads(text)
        journal.add("reply", connection.torture_number, reply["status"], reply.get("error"))
        return text

    def noted_put(url: Any, *args: Any, **options: Any) -> httpx.Response:
        answer = put(url, *args, **options)
        if answer.is_error:
            journal.add("note", "upload failed", f"{url}: {answer.status_code}")
        return answer

    vars_of: Any = ClientConnection
    vars_of.send, vars_of.recv = noted_send, noted_receive
    httpx.put = noted_put


class Trainer:
    """Trains runs, one after the other."""

    def __init__(self, seed: int, number: int, journal: Journal, folder: Path) -> None:
        self._name = f"client-{seed}-{number}"
        self._journal = journal
        self._folder = folder
        self._noise = random.Random(self._name)

    def train(self, api: str, frontier: str, life_seconds: float, stop: threading.Event) -> None:
        """Train until told to stop."""
        for life in itertools.count():
            if stop.is_set():
                return
            name = f"{self._name}-{life}"
            try:
                run = Run(name, repo=api, frontier_url=frontier, experiment=self._noise.choice(contents.EXPERIMENTS))
            except ConnectionError as error:
                self._journal.add("note", "gave up connecting", f"{name}: {error}")
                time.sleep(RETRY_SECONDS)
                continue
            self._live(run, life_seconds * self._noise.uniform(0.5, 1.5), stop)

    def _live(self, run: Run, seconds: float, stop: threading.Event) -> None:
        transport = run._ws
        run.name = f"name of {run.hash}"
        run["hparams"] = {"lr": 0.01, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "odd": 2**70}
        ends = time.monotonic() + seconds
        for step in itertools.count():
            if stop.is_set() or time.monotonic() > ends:
                break
            self._step(run, step)
            stop.wait(self._noise.uniform(*STEP_SECONDS))
        run.close()
        self._journal.add("note", "closed", json.dumps({"run": run.hash, **transport.stats}))

    def _step(self, run: Run, step: int) -> None:
        for context in contents.CONTEXTS:
            odd = self._noise.random() < 0.05
            value = self._noise.choice(contents.ODD_VALUES) if odd else self._noise.lognormvariate(0, 1)
            run.track(value, name="loss", step=step, epoch=step // 10, context=context)
        run.track(float(step), name="revised", step=step * 7 % 40 - 20)
        run.track({"a": step / 3, "b": step / 7}, step=step - 50)
        run["last.step"] = step
        run[f"slots.slot {step % 9}"] = [step, {"of": run.hash}]
        run.log_info(f"step {step}", number=step)
        print(f"line of step {step}")
        if step % 8 == 1:
            run.add_tag(f"tag {step // 8 % 4}")
        if step % 16 == 9:
            run.remove_tag(f"tag {step // 8 % 3}")
        self._objects(run, step)

    def _objects(self, run: Run, step: int) -> None:
        if step % 3 == 0:
            run.track(Text(f"{run.hash}: text {step} 🚀"), name="samples", step=step, context={"subset": "train"})
        if step % 10 == 4:
            run.track(Distribution.from_histogram([step, 5, 2], (-1.0, 2.0)), name="weights", step=step)
        if step % 50 == 25:
            run.track(Figure({"data": [], "layout": {"title": {"text": f"figure {step}"}}}), name="figure", step=step)
        if step % 20 == 6:
            data = self._announce(run, f"seq/pictures/{step}.png")
            run.track(Image(data, caption=f"{step}"), name="pictures", step=step)
        if step % 40 == 13:
            self._artifact(run, f"models/weights {step}.bin")

    def _artifact(self, run: Run, path: str) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder) as file:
            file.write(self._announce(run, path))
            file.flush()
            run.log_artifact(file.name, name=path)

    def _announce(self, run: Run, path: str) -> bytes:
        """Return the bytes of a file and write down that they are about to be uploaded."""
        data = contents.file_bytes(run.hash, path)
        self._journal.add("upload", f"{run.hash}/{path}", digest(data))
        return data


def _wait_for_the_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def main(seed: int, journals: Path, number: int, life_seconds: float, api: str, frontier: str) -> None:
    """Train until stdin ends, then close the run at hand."""
    journal = Journal(journals / f"client-{number}.jsonl")
    listen(journal)
    stop = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(stop,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(seed, number, journal, Path(folder)).train(api, frontier, life_seconds, stop)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5], sys.argv[6])
