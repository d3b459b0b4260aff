"""Training scripts that use the released matyan-client as its users do; each runs in a process of its own.

python -m tests.support.client_scripts everything http://127.0.0.1:53800 <run id>
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from matyan_client import Audio, Distribution, Figure, Image, Repo, Run, Text

POINTS: Final = 500
WRITER_POINTS: Final = 1000
FIGURE: Final = {"data": [{"type": "scatter", "x": [1, 2], "y": [3.5, 4]}], "layout": {"title": {"text": "t"}}}


def loss(step: int) -> float:
    """Return the value that every script tracks as `loss` at `step`."""
    return 2.0 / (1 + step / 7)


def everything(url: str, run_id: str) -> None:
    """Call every public way to write: properties, params, tags, scalars, objects, logs, artifacts, terminal."""
    run = Run(run_hash=run_id, repo=url, experiment="everything")
    run.name, run.description = "all calls", "größe\nline two"
    print("first line")
    _params_and_tags(run)
    _scalars(run)
    _objects(run)
    run.log_debug("debug message")
    run.log_info("info message", answer=42)
    run.log_warning("warning message", nested={"a": [1, 2]})
    run.log_error("error message %s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text("lr: 0.1\n")
        run.log_artifact(str(path))
        run.log_artifact(str(path), name="cfg/main config.yaml")
    print("last line")
    run.close()


def two_writers(url: str, run_id: str, name: str) -> None:
    """Be one of several processes that track into one run at the same time."""
    run = Run(run_hash=run_id, repo=url, capture_terminal_logs=False)
    for step in range(WRITER_POINTS):
        run.track(loss(step), name=name, step=step, context={"writer": name})
    run.close()


def life(url: str, run_id: str, first: str, force_resume: str) -> None:
    """Live one life of a run that is opened again later: ten points from step `first` on, one terminal line."""
    run = Run(run_hash=run_id, repo=url, force_resume=force_resume == "force")
    if first == "0":
        run.name, run.experiment = "many lives", "resumed"
        run["hparams"] = {"lr": 0.1, "layers": [1, 2]}
        run.add_tag("kept")
    print(f"life from {first}")
    for step in range(int(first), int(first) + 10):
        run.track(loss(step), name="loss", step=step)
    run.close()


def keep_on(url: str, run_id: str, seconds: str) -> None:
    """Train for some seconds, a hundred points and two images a second, and finish; print that it went well."""
    run = Run(run_hash=run_id, repo=url)
    step, ends = 0, time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        run.track(loss(step), name="loss", step=step)
        if step % 50 == 0:
            run.track(Image(bytes(48)), name="pics", step=step)
        step += 1
        time.sleep(0.01)
    run.close()
    print(f"trained {step} steps")


def read(url: str, run_id: str) -> None:
    """Read a run back with the client's own reader and print what it says."""
    repo = Repo(url)
    run = repo.get_run(run_id)
    found = {
        "learning_rate": run["hparams.lr"],
        "tags": run.tags,
        "loss": run.get_metric("loss", {"subset": "train"}),
        "runs": repo.list_all_runs(),
    }
    repo.close()
    print(json.dumps(found))


def rate(url: str, steps: str) -> None:
    """Track ten metrics as fast as the client takes them; print the seconds until all of it is acknowledged."""
    run = Run(repo=url, capture_terminal_logs=False)
    begin = time.perf_counter()
    for step in range(int(steps)):
        for index in range(10):
            run.track(loss(step), name=f"metric_{index}", step=step)
    run._ws.wait_for_flush(600)  # close() alone gives up after 8 s
    run.close()
    print(time.perf_counter() - begin)


def _params_and_tags(run: Run) -> None:
    run["hparams"] = {"lr": 0.001, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "amp": True, "seed": None}
    run["hparams.lr"] = 0.01
    run["a.b.c"] = [1, {"x": 2}]
    run["big"] = 2**70
    run["special"] = {"nan": float("nan"), "inf": float("inf"), "tuple": (1, 2)}
    run.set("note", "plain text")
    for tag in ("good", "good", "to drop", "日本語 🚀"):
        run.add_tag(tag)
    run.remove_tag("to drop")


def _scalars(run: Run) -> None:
    for step in range(POINTS):
        run.track(loss(step), name="loss", step=step, epoch=step // 100, context={"subset": "train"})
    run.track({"acc": 0.5, "f1": 0.25}, step=3, context={"subset": "val"})
    for value in (1, True, 1.5, "2.5", float("nan"), float("inf"), float("-inf"), -0.0):
        run.track(value, name="auto step")
    run.track(1.0, name="fractional epoch", step=0, epoch=0.5)
    for step, value in ((5, 5.0), (3, 3.0), (3, 3.5), (-2, -2.0), (10, 10.0), (4, 4.0)):
        run.track(value, name="any order/with 🚀 in the name", step=step)


def _objects(run: Run) -> None:
    pixels = bytes(range(48))
    run.track(Image(pixels, caption="bytes"), name="pics", step=0, context={"subset": "train"})
    run.track(Audio(b"RIFFxxxxWAVE", format_="wav", caption="beep"), name="sound", step=0)
    run.track(Text("hello\nworld 🚀"), name="samples", step=0)
    run.track(Text(""), name="samples", step=1)
    run.track(Distribution.from_histogram([1, 5, 2], (-1.0, 2.0)), name="weights", step=0, context={"layer": 1})
    run.track(Figure(FIGURE), name="figure", step=0)


SCRIPTS: Final[Mapping[str, Callable[..., Any]]] = {
    "everything": everything,
    "two_writers": two_writers,
    "life": life,
    "keep_on": keep_on,
    "read": read,
    "rate": rate,
}

if __name__ == "__main__":
    SCRIPTS[sys.argv[1]](*sys.argv[2:])
