"""Scripts that upload and download files with the released matyan-client, each in a process of its own.

python -m tests.support.client_files download http://127.0.0.1:53800 <run id> <directory> [<artifact path> ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from matyan_client import Run

from tests.support.rest import status_of


def upload(url: str, run_id: str, folder: str, *names: str) -> None:
    """Log a file of its own for each name, which holds the name; the files are made in `folder`."""
    run = Run(run_hash=run_id, repo=url, capture_terminal_logs=False)
    for number, name in enumerate(map(json.loads, names)):
        path = Path(folder) / f"{number}"
        path.write_bytes(name.encode())
        run.log_artifact(str(path), name=name)
    run.close()


def upload_tree(url: str, run_id: str, folder: str, prefix: str) -> None:
    """Log a directory twice, as it is and under a prefix."""
    run = Run(run_hash=run_id, repo=url, capture_terminal_logs=False)
    run.log_artifacts(folder)
    run.log_artifacts(folder, name=prefix)
    run.close()


def upload_file(url: str, run_id: str, path: str) -> None:
    """Log one file under its own name."""
    run = Run(run_hash=run_id, repo=url, capture_terminal_logs=False)
    run.log_artifact(path)
    run.close()


def download(url: str, run_id: str, folder: str, *names: str) -> None:
    """Fetch each name in both ways that there are, then all files into `folder`; print what came."""
    run = Run(run_hash=run_id, repo=url, read_only=True)
    singles = {}
    for name in map(json.loads, names):
        target = Path(folder).with_name("single")
        run.download_artifact(name, target)
        singles[name] = [run.get_artifact(name).decode(), target.read_bytes().decode()]
    paths = run.download_artifacts(folder)
    print(json.dumps({"listed": run.artifacts, "singles": singles, "all": [str(path) for path in paths]}))
    run.close()


def download_file(url: str, run_id: str, name: str, target: str) -> None:
    """Fetch one file to `target`."""
    run = Run(run_hash=run_id, repo=url, read_only=True)
    run.download_artifact(name, target)
    run.close()


def download_all(url: str, run_id: str, folder: str) -> None:
    """Fetch all files into `folder`."""
    run = Run(run_hash=run_id, repo=url, read_only=True)
    run.download_artifacts(folder)
    run.close()


def download_nothing(url: str, run_id: str, folder: str) -> None:
    """Print the statuses with which the client refuses to download what is not there."""
    run = Run(run_hash=run_id, repo=url, read_only=True)
    calls: list[Callable[[], Any]] = [
        lambda: run.get_artifact("nope"),
        lambda: run.download_artifact("nope", Path(folder) / "nope"),
        lambda: run.download_artifacts(folder),
    ]
    print(json.dumps([status_of(call) for call in calls]))
    run.close()


SCRIPTS: Final[Mapping[str, Callable[..., Any]]] = {
    "upload": upload,
    "upload_tree": upload_tree,
    "upload_file": upload_file,
    "download": download,
    "download_file": download_file,
    "download_all": download_all,
    "download_nothing": download_nothing,
}

if __name__ == "__main__":
    SCRIPTS[sys.argv[1]](*sys.argv[2:])
