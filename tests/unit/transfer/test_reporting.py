"""What a transfer says while it works."""

from __future__ import annotations

import io

from matyan.clock import ManualClock
from matyan.transfer.reporting import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(out: io.StringIO) -> None:
    clock = ManualClock()
    progress = ProgressLine(out, clock=clock)
    progress.begin("imported", 2)
    for _ in range(2):
        clock.advance(3.0)
        progress.count_points(3000)
        progress.count_run()
    progress.end()


def test_a_file_gets_a_line_every_few_seconds_and_the_last_counts() -> None:
    out = io.StringIO()

    work(out)

    assert out.getvalue().splitlines() == [
        "imported 1/2 runs, 6,000 points, 1,000 points/s",
        "imported 2/2 runs, 6,000 points, 1,000 points/s",
    ]


def test_a_terminal_keeps_one_line() -> None:
    out = Terminal()

    work(out)

    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("\r\x1b[Kimported 2/2 runs, 6,000 points, 1,000 points/s\n")
