"""python -m tests.fuzz.queries --minutes N [--seed S]: random queries until the time is over or a flaw is found."""

from __future__ import annotations

import argparse
import collections
import signal
import time
from random import Random
from types import FrameType
from typing import Final

from tests.fuzz.corpus import ESCAPES, EXHAUSTIONS
from tests.fuzz.examiner import Examiner, FlawError
from tests.fuzz.grammar import random_expression, random_mutation
from tests.fuzz.rows import make_rows

HUNG_SECONDS: Final = 60
SECONDS_PER_REPORT: Final = 30.0
TEXTS_PER_LOOK: Final = 100


class Hung(BaseException):
    """A text takes for ever; no `Exception`, which a query may catch as its own."""


def random_text(random: Random) -> str:
    """Return a text of the grammar or a changed attack."""
    return random_expression(random) if random.random() < 0.5 else random_mutation(random)


def main() -> int:
    """Run the command; 1 when there are flaws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time; it is printed")
    arguments = parser.parse_args()
    seed = time.time_ns() if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGALRM, _on_alarm)
    return _fuzz(Random(seed), time.monotonic() + 60 * arguments.minutes)


def _fuzz(random: Random, end: float) -> int:
    examiner = Examiner(make_rows(), is_alone=True)
    outcomes: collections.Counter[str] = collections.Counter()
    flaws = 0
    for attack in (*ESCAPES, *EXHAUSTIONS):
        flaws += not _examine(examiner, attack.text, "run", outcomes)
    report = time.monotonic() + SECONDS_PER_REPORT
    while time.monotonic() < end:
        variable = random.choice(("run", "run", "metric", "images"))
        flaws += not _examine(examiner, random_text(random), variable, outcomes)
        if outcomes.total() % TEXTS_PER_LOOK == 0:
            examiner.check_world()
        if time.monotonic() > report:
            print(f"{outcomes.total()} texts, {flaws} flaws", flush=True)
            report += SECONDS_PER_REPORT
    examiner.check_world()
    print(f"{outcomes.total()} texts, {flaws} flaws; {dict(outcomes.most_common())}")
    return int(flaws > 0)


def _examine(examiner: Examiner, text: str, variable: str, outcomes: collections.Counter[str]) -> bool:
    signal.alarm(HUNG_SECONDS)
    try:
        outcomes[examiner.examine(text, variable=variable)] += 1
    except FlawError as flaw:
        print(flaw, flush=True)
        return False
    except Hung:
        print(f"never ends: {text!r}", flush=True)
        return False
    finally:
        signal.alarm(0)
    return True


def _on_alarm(_: int, __: FrameType | None) -> None:
    raise Hung


if __name__ == "__main__":
    raise SystemExit(main())
