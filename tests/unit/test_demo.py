from __future__ import annotations

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from matyan.demo import EPOCHS, PLANS, Plan, draw_filters, log_demo, simulate
from matyan.errors import UnavailableError
from tests.support.server import free_port


def plan_named(name: str) -> Plan:
    return next(plan for plan in PLANS if plan.name == name)


def test_the_demo_is_a_dozen_runs_in_three_experiments() -> None:
    assert len(PLANS) == 12
    assert len({plan.experiment for plan in PLANS}) == 3


def test_run_ids_are_distinct_hex_and_the_same_every_time() -> None:
    ids = [plan.run_id for plan in PLANS]

    assert len(set(ids)) == len(PLANS)
    assert all(re.fullmatch(r"[0-9a-f]{32}", run_id) for run_id in ids)
    assert plan_named("lr=0.001").run_id == Plan(experiment="learning-rate", name="lr=0.001").run_id


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_curves_are_the_same_every_time(plan: Plan) -> None:
    once, again = list(simulate(plan)), list(simulate(plan))

    assert len(once) == EPOCHS
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first.losses, second.losses)
        np.testing.assert_array_equal(first.gradients, second.gradients)
        assert first.train_accuracy == second.train_accuracy


def test_a_sensible_learning_rate_learns() -> None:
    first, *_, last = simulate(plan_named("lr=0.001"))

    assert last.losses[-1] < first.losses[0] / 5
    assert last.val_accuracy > first.val_accuracy + 0.3


def test_too_high_a_learning_rate_diverges_to_nan() -> None:
    *_, last = simulate(plan_named("lr=0.3"))

    assert math.isnan(last.losses[-1])
    assert math.isnan(last.val_loss)
    assert last.val_accuracy == pytest.approx(0.1)


def test_filters_are_a_picture_that_changes_with_training() -> None:
    first, *_, last = simulate(plan_named("lr=0.001"))

    picture = draw_filters(last)

    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert (picture != draw_filters(first)).any()


@pytest.mark.filterwarnings("default")
def test_without_a_tracker_the_demo_says_how_to_start_one() -> None:
    pytest.importorskip("matyan_client", reason="the extra `demo` is not installed")

    with pytest.raises(UnavailableError, match="matyan up"):
        log_demo(f"http://127.0.0.1:{free_port()}", pace_seconds=0)


def test_without_matyan_client_the_demo_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['matyan_client'] = None\n"
        "from matyan.demo import log_demo\n"
        "try: log_demo('http://127.0.0.1:9')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )

    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert answer.startswith("ConfigurationError")
    assert "pip install 'matyan-tracker[demo]'" in answer
