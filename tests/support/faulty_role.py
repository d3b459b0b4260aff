"""`matyan`, its store under FoundationDB's rules and errors: what the fault suite starts in place of the command.

Usage: python -m tests.support.faulty_role --seed N [--rates conflict=0.1,too_old=0.05] [--report FILE] COMMAND ...

Without --rates, those of `kv_faults.ROUGH`. FILE gets a line per fault injected, also from a process that is killed.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import msgspec

from matyan import cli
from matyan.engines import open as opening
from matyan.engines.kv.protocol import KvEngine
from tests.support.kv_faults import ROUGH, FaultRates, FaultyKv

P = ParamSpec("P")


def parse_rates(text: str) -> FaultRates:
    """Read `kind=rate,kind=rate`; what is not named is not injected."""
    pairs = dict(part.split("=", 1) for part in text.split(",") if part)
    return msgspec.convert(pairs, FaultRates, strict=False)


def faulty(
    open_kv: Callable[P, KvEngine], *, seed: int, rates: FaultRates, report: Path | None
) -> Callable[P, KvEngine]:
    """Return an opener whose engines inject faults."""

    @functools.wraps(open_kv)
    def open_faulty(*args: P.args, **kwargs: P.kwargs) -> KvEngine:
        return FaultyKv(open_kv(*args, **kwargs), seed=seed, rates=rates, report=report)

    return open_faulty


def main() -> None:
    """Run a command of `matyan` with the opener replaced: a part imports it when it is built."""
    parser = argparse.ArgumentParser(prog="faulty_role", description="run a command of matyan on a faulty store")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rates", type=parse_rates, default=ROUGH)
    parser.add_argument("--report", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    opening.open_kv = faulty(opening.open_kv, seed=options.seed, rates=options.rates, report=options.report)
    raise SystemExit(cli.main(options.command))


if __name__ == "__main__":
    main()
