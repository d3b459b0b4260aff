"""Scripts that read, change and delete runs with the released matyan-client, each in a process of its own.

What the client returned is left in a file as a pickle, since it holds bytes, NaN and integer keys; see `results`.

python -m tests.support.client_reads reads http://127.0.0.1:53800 <file> <run id>
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from matyan_client import Repo, Run
from matyan_client.transport.http import HttpTransport

from tests.support.rest import status_of
from tests.support.scripts import run_module

PAGE: Final = 50
BUCKETS: Final = {
    "images": "query_images",
    "audios": "query_audios",
    "texts": "query_texts",
    "distributions": "query_distributions",
    "figures": "query_figure_objects",
}
"""Kind of sequence -> the method of Repo that searches it."""


def results(script: str, url: str, folder: Path, *arguments: str, warns: bool = False) -> dict[str, Any]:
    """Run a script of this module, which warns if it must; return what the client returned, by the name of the call."""
    target = folder / f"{script}.pickle"
    output = run_module("client_reads", script, url, str(target), *arguments, warns=warns)
    assert ("WARNING" in output) is warns
    found: dict[str, Any] = pickle.loads(target.read_bytes())
    return found


def reads(url: str, run_id: str) -> dict[str, Any]:
    """Call everything that reads; `run_id` is the run to look at closely."""
    repo, http = Repo(url), HttpTransport(url)
    run = Run(run_hash=run_id, repo=url, read_only=True)
    found = {**_repo_reads(repo), **_searches(repo, run_id), **_run_reads(run), **_transport_reads(http, run_id)}
    for opened in (run, http, repo):
        opened.close()
    return found


def changes(url: str, run_id: str, other_id: str) -> dict[str, Any]:
    """Change a run through a read-only handle, which the client ignores, and through the calls that do it."""
    repo, http = Repo(url), HttpTransport(url)
    handle = repo.get_run(run_id)
    handle.add_tag("ignored")
    handle.name = handle.description = "ignored"
    handle.archived = True
    handle["hparams"] = "ignored"
    found = {"after the read-only handle": http.get_run_info(run_id)}
    found["update_run"] = http.update_run(run_id, name="renamed", description="why", archived=True, experiment="moved")
    found["add_tag_to_run"] = http.add_tag_to_run(run_id, "from REST")
    http.add_tag_to_run(run_id, "to drop")
    tag_ids = {tag["name"]: tag["id"] for tag in http.list_tags()}
    found["remove_tag_from_run"] = http.remove_tag_from_run(run_id, tag_ids["to drop"])
    found["add_tag_to_run of an unknown run"] = status_of(lambda: http.add_tag_to_run("nope", "x"))
    found["after all"] = http.get_run_info(run_id)
    found["finish"] = http.update_run(other_id, active=False)
    found["finished"] = http.get_run_info(other_id)
    for opened in (handle, http, repo):
        opened.close()
    return found


def entities(url: str) -> dict[str, Any]:
    """Create, list and delete experiments and tags."""
    repo, http = Repo(url), HttpTransport(url)
    found = {
        "create_experiment": http.create_experiment("made"),
        "create_experiment again": status_of(lambda: http.create_experiment("made")),
        "create_tag": http.create_tag("red", color="#f00", description="x"),
        "create_tag again": status_of(lambda: http.create_tag("red")),
        "list_experiments": http.list_experiments(),
        "list_tags": http.list_tags(),
        "get_project_info": http.get_project_info(),
        "get_version": http.get_version(),
        "delete_experiment": repo.delete_experiment(http.create_experiment("to delete")["id"]),
        "left": [experiment["name"] for experiment in http.list_experiments()],
    }
    for opened in (http, repo):
        opened.close()
    return found


def deletions(url: str, *run_ids: str) -> dict[str, Any]:
    """Delete runs in each way that there is; the last two go in one batch."""
    first, second, third, *batch = run_ids
    repo, http = Repo(url), HttpTransport(url)
    found = {
        "delete_run": repo.delete_run(first),
        "run_exists": repo.run_exists(first),
        "get_run": repo.get_run(first),
        "delete_runs": repo.delete_runs([second, third]),
        "delete_runs_batch": http.delete_runs_batch(batch),
        "left": repo.list_all_runs(),
        "queried": [run["hash"] for run in repo.query_runs("run.duration != 0")],
    }
    http.clear_run_tombstone(first)
    for opened in (http, repo):
        opened.close()
    return found


def refusals(url: str, run_id: str) -> dict[str, Any]:
    """Delete what is not there, or not any more: the client prints warnings."""
    repo = Repo(url)
    found = {
        "delete_run": repo.delete_run("nope"),
        "delete_runs": repo.delete_runs([run_id, "nope"]),
        "delete_experiment": repo.delete_experiment("nope"),
    }
    repo.close()
    return found


def _repo_reads(repo: Repo) -> dict[str, Any]:
    pages = list(repo.query_runs(paginated=True, limit=PAGE))
    return {
        "iter_runs": [run.hash for run in repo.iter_runs()],
        "list_all_runs": repo.list_all_runs(),
        "list_active_runs": repo.list_active_runs(),
        "total_runs_count": repo.total_runs_count(),
        "pages": [[run["hash"] for run in page] for page in pages],
        "pages of a query": [
            [run["hash"] for run in page]
            for page in repo.query_runs("run.hparams.index % 10 == 3", paginated=True, limit=5)
        ],
        "a page behind a run": [run["hash"] for run in repo.query_runs(offset=pages[0][-1]["hash"])],
        "run_exists": [repo.run_exists(pages[0][0]["hash"]), repo.run_exists("nope")],
        "get_run of an unknown": repo.get_run("nope"),
        "repo.collect_sequence_info": repo.collect_sequence_info(("metric", "images")),
        "repo.collect_params_info": repo.collect_params_info(),
    }


def _searches(repo: Repo, run_id: str) -> dict[str, Any]:
    own = f'run.hash == "{run_id}"'
    return {
        "query_runs": repo.query_runs(own),
        "query_metrics": repo.query_metrics(f"{own} and metric.name != 'loss'"),
        "query_metrics of many points": repo.query_metrics(f"{own} and metric.name == 'loss'"),
        **{method: getattr(repo, method)(own) for method in BUCKETS.values()},
        **{f"{method} of none": getattr(repo, method)('run.hash == "nope"') for method in BUCKETS.values()},
    }


def _run_reads(run: Run) -> dict[str, Any]:
    return {
        "props": run.props,
        "tags": run.tags,
        "artifacts": run.artifacts,
        "metrics": run.metrics(),
        "get_metric": run.get_metric("loss", {"subset": "train"}),
        "get_metric without context": run.get_metric("auto step"),
        "get_metric of another context": run.get_metric("loss"),
        "iter_metrics_info": [(name, context, of.hash) for name, context, of in run.iter_metrics_info()],
        "collect_sequence_info": run.collect_sequence_info(),
        "collect_sequence_info of one": run.collect_sequence_info("images"),
        "collect_sequence_info of two": run.collect_sequence_info(("metric", "texts")),
        "params": {key: run[key] for key in ("hparams", "hparams.opt.name", "a.b.c", "big", "special", "note")},
        "a missing param": run.get("nope.nope", "default"),
    }


def _transport_reads(http: HttpTransport, run_id: str) -> dict[str, Any]:
    uris = {bucket: _blob_uris(http.search_sequence(bucket, f'run.hash == "{run_id}"')) for bucket in BUCKETS}
    return {
        "get_run_logs": http.get_run_logs(run_id),
        "get_run_logs of a range": http.get_run_logs(run_id, "1:2"),
        "get_run_log_records": http.get_run_log_records(run_id),
        "get_run_metric_batch": http.get_run_metric_batch(
            run_id, [{"name": "loss", "context": {"subset": "train"}}], record_density=50_000
        ),
        "get_run_metric_batch of few": http.get_run_metric_batch(
            run_id, [{"name": "loss", "context": {"subset": "train"}}, {"name": "nope", "context": {}}]
        ),
        "get_blob_batch": {bucket: list(http.get_blob_batch(bucket, uris[bucket]).values()) for bucket in uris},
        "get_blob_batch of nothing": http.get_blob_batch("images", ["nope"]),
    }


def _blob_uris(found: list[dict[str, Any]]) -> list[str]:
    objects = (item for run in found for trace in run["traces"].values() for item in _objects(trace["values"]))
    return [item["blob_uri"] for item in objects if "blob_uri" in item]


def _objects(values: Mapping[int, Any]) -> list[dict[str, Any]]:
    """Return the objects of all steps; the client makes dicts of lists, and figures stand alone."""
    return [item for value in values.values() for item in (value.values() if 0 in value else [value])]


SCRIPTS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "reads": reads,
    "changes": changes,
    "entities": entities,
    "deletions": deletions,
    "refusals": refusals,
}

if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(pickle.dumps(SCRIPTS[sys.argv[1]](sys.argv[2], *sys.argv[4:])))
