"""The fault suite: `make torture`.

    python -m tests.torture --seed 7 --minutes 10 --deployment apart

Unmodified clients and raw WebSocket writers send known data while processes are killed, frozen and cut off; afterwards
every acknowledged item must be there exactly once. Exits with 1 when one is not.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.torture.deployments import DEPLOYMENTS
from tests.torture.runner import Plan, describe, keep_evidence, schedule_of, torture


def main() -> int:
    """Run one torture; return the exit code."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    plan = Plan(
        seed=options.seed,
        seconds=options.minutes * 60,
        deployment=options.deployment,
        writers=options.writers,
        clients=options.clients,
        life_seconds=options.life,
        kv_faults=options.kv_faults,
        acknowledged_min=options.acknowledged,
    )
    print(f"{plan.command()}\n")
    for fault in schedule_of(plan):
        print(fault)
    with tempfile.TemporaryDirectory(prefix="matyan-torture-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        is_good = False
        try:
            report = torture(plan, folder)
            is_good = report.is_good
            print(f"\n{describe(report)}", flush=True)
        finally:
            if not is_good:
                print(f"logs and journals are in {keep_evidence(folder, plan.seed)}")
    return 0 if is_good else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the schedule; default: any")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long writers write")
    parser.add_argument("--deployment", choices=list(DEPLOYMENTS), default="apart")
    parser.add_argument("--writers", type=int, default=8, help="raw WebSocket writers")
    parser.add_argument("--clients", type=int, default=8, help="processes of the released client")
    parser.add_argument("--life", type=float, default=25.0, help="about how many seconds one run is written")
    parser.add_argument("--acknowledged", type=int, default=0, help="go on until so many frames are acknowledged")
    parser.add_argument(
        "--kv-faults",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the store make FoundationDB's errors, unknown commits among them",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
