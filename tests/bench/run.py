"""`make bench`: what this machine does, next to its peers in the same run where they are installed.

    python -m tests.bench.run --part reads --runs 1000,10000,100000

Prints Markdown; `--write FILE` also puts it into a page, between the marks of the part. Figures are measured here and
never asserted in tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench import arrivals, ingest, load, machine, pages, peers, reads, soak, stores
from tests.bench.ingest import Amount
from tests.bench.page import put_part
from tests.bench.table import Table


class Options(NamedTuple):
    """What to measure."""

    folder: Path
    """For data that is thrown away; its disk is part of the figures."""
    cache: Path
    """Where stores and peers' data are kept for the next time."""
    runs: Sequence[int]
    ui_runs: int
    """Size of the store that is browsed, idle and under load."""
    amount: Amount
    points: int
    share: float
    """How much of work of a fixed size: 1 is all of it."""


PARTS: Final[Mapping[str, Callable[[Options], Sequence[Table]]]] = {
    "one": lambda given: [ingest.one_process(given.folder, given.amount)],
    "kafka": lambda given: [ingest.through_kafka(given.folder, given.amount)],
    "stores": lambda given: [stores.table(given.cache, given.runs)],
    "reads": lambda given: reads.tables(given.cache, given.runs),
    "peers": lambda given: [peers.table(given.cache, given.runs[0])],
    "load": lambda given: [load.table(given.cache, given.folder, given.ui_runs, given.amount.seconds)],
    "soak": lambda given: soak.tables(given.folder, given.points),
    "ui": lambda given: [pages.table(given.cache, given.ui_runs, given.share)],
    "sequences": lambda given: [arrivals.table(given.folder, given.share)],
}


def main(arguments: Sequence[str]) -> None:
    """Measure the parts that are asked for, print their tables, and put them into a page."""
    options = _parser().parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.part.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="matyan-bench-") as folder:
            text = _measure(name, options, Path(folder))
        print(text, flush=True)
        if options.write is not None:
            put_part(options.write, name, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="one,kafka", help=f"parts, separated by commas, of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="where passing data goes; its disk is part of the figures")
    parser.add_argument("--cache", type=Path, default=stores.default_cache(), help="where stores are kept")
    parser.add_argument("--runs", default="1000,10000,100000", help="sizes of the stores; peers have the first")
    parser.add_argument("--ui-runs", type=int, default=10_000, help="size of the store that is browsed")
    parser.add_argument("--frames", type=int, default=500, help="frames of 100 points on each of 20 connections")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long something is watched under load")
    parser.add_argument("--points", type=int, default=20_000_000, help="how many are written in a soak")
    parser.add_argument("--share", type=float, default=1.0, help="how much of work of a fixed size, 1 is all of it")
    parser.add_argument("--write", type=Path, help="a Markdown page that has a place for the parts")
    return parser


def _measure(name: str, options: argparse.Namespace, folder: Path) -> str:
    runs = [int(count) for count in options.runs.split(",")]
    amount = Amount(options.frames, options.seconds).part(options.share)
    given = Options(folder, options.cache, runs, options.ui_runs, amount, options.points, options.share)
    where = f"{machine.description()}; fsync {machine.fsync_seconds(folder) * 1e3:.2f} ms"
    return "\n".join([where, "", *(table.markdown() for table in PARTS[name](given))])


if __name__ == "__main__":
    main(sys.argv[1:])
