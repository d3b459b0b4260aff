"""The runs of the benchmarks' stores: the same ones every time, and the same for every tracker.

Only numpy is imported, so that the Pythons of peers can use it too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION: Final = 1
"""To be raised with every change of what a run holds: stores that are kept are made anew."""
SEED: Final = 20_261_121
STEPS: Final = 50
SWEEP_RUNS: Final = 1_000
"""Runs with the same `sweep` param, at every size of store; none of sweep 0 is archived, so a reader gets them all."""
EXPERIMENTS: Final = tuple(f"study-{number:02d}" for number in range(12))
TAGS: Final = ("baseline", "candidate", "best", "diverged", "ablation", "paper", "nightly", "rerun")
LONG_POINTS: Final = 1_000_000
LONG_METRIC: Final = "long_loss"
LONG_RUN: Final = "f" * 32
BEGIN_SECONDS: Final = 1_750_000_000.0
_SPAN_SECONDS: Final = 365 * 86_400.0
_MODELS: Final = ("resnet18", "resnet50", "vit-small", "vit-base", "convnext")
_OPTIMIZERS: Final = ("adamw", "sgd", "lion")


class Curve(NamedTuple):
    """A metric of STEPS points, float32 values in doubles."""

    name: str
    context: Mapping[str, str]
    values: NDArray[np.float64]


class PlannedRun(NamedTuple):
    """Everything of one run."""

    hash: str
    name: str
    experiment: str
    tags: Sequence[str]
    archived: bool
    created_at_seconds: float
    end_time_seconds: float
    params: Mapping[str, Any]
    """Eighteen scalars in four groups, and one beside them."""
    curves: Sequence[Curve]

    def times_ms(self) -> NDArray[np.int64]:
        """Return when its points were tracked."""
        return np.linspace(self.created_at_seconds * 1000, self.end_time_seconds * 1000, STEPS).astype(np.int64)


def planned_runs(count: int) -> Iterator[PlannedRun]:
    """Yield the runs of a store of `count` runs, the oldest first."""
    for index in range(count):
        yield planned_run(index, count)


def long_values() -> NDArray[np.float64]:
    """Return the values of the one long metric: a noisy falling float32 loss of LONG_POINTS points."""
    noise = np.random.default_rng(SEED).normal(0, 0.1, LONG_POINTS)
    return _float32((0.1 + 2 / (1 + np.arange(LONG_POINTS) / 20_000)) * np.exp(noise))


def planned_run(index: int, count: int) -> PlannedRun:
    """Return run `index` of a store of `count` runs."""
    dice = random.Random(SEED * 1_000_003 + index)
    created = BEGIN_SECONDS + _SPAN_SECONDS * index / count
    sweep = index % max(1, count // SWEEP_RUNS)
    params = _params(dice, sweep)
    return PlannedRun(
        hash=f"{dice.getrandbits(128):032x}",
        name=f"{params['model']['name']} #{index}",
        experiment=dice.choice(EXPERIMENTS),
        tags=dice.sample(TAGS, dice.choice((0, 0, 1, 1, 2))),
        archived=dice.random() < 0.02 and sweep > 0,
        created_at_seconds=created,
        end_time_seconds=created + dice.lognormvariate(7, 1),
        params=params,
        curves=_curves(dice, index),
    )


def _params(dice: random.Random, sweep: int) -> dict[str, Any]:
    return {
        "hparams": {
            "learning_rate": 10 ** dice.uniform(-5, -1),
            "batch_size": dice.choice((32, 64, 128, 256)),
            "epochs": 50,
            "warmup_steps": dice.randrange(0, 2000, 100),
            "optimizer": {
                "name": dice.choice(_OPTIMIZERS),
                "weight_decay": dice.choice((0.0, 0.01, 0.1)),
                "momentum": dice.choice((0.9, 0.95)),
            },
        },
        "model": {
            "name": dice.choice(_MODELS),
            "layers": dice.choice((12, 18, 24, 50)),
            "hidden": dice.choice((256, 512, 1024)),
            "dropout": round(dice.uniform(0, 0.5), 2),
            "pretrained": dice.random() < 0.5,
        },
        "dataset": {"name": "imagenet-100", "version": f"v{dice.randrange(4)}", "train_size": 126_689},
        "trainer": {"precision": dice.choice(("bf16", "fp32")), "devices": dice.choice((1, 4, 8)), "host": "node-17"},
        "seed": dice.randrange(2**31),
        "sweep": sweep,
    }


def _curves(dice: random.Random, index: int) -> Sequence[Curve]:
    """Return three to five metrics."""
    noise = np.random.default_rng((SEED, index)).normal(0, 0.1, (5, STEPS))
    steps = np.arange(STEPS)
    loss = (dice.uniform(0.05, 0.5) + 2 / (1 + steps / dice.uniform(3, 12))) * np.exp(noise[0])
    val_loss = loss * 1.05 * np.exp(noise[1] / 2)
    accuracy = np.exp(-val_loss)
    found = [
        Curve("loss", {"subset": "train"}, _float32(loss)),
        Curve("loss", {"subset": "val"}, _float32(val_loss)),
        Curve("accuracy", {"subset": "val"}, _float32(accuracy)),
        Curve("gradient_norm", {}, _float32(loss * 1.8 * np.exp(noise[3]))),
        Curve("learning_rate", {}, 1e-3 * 0.5 * (1 + np.cos(np.pi * steps / STEPS))),
    ]
    return found[: dice.choice((3, 4, 5))]


def _float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)
