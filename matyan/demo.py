"""`matyan demo`: logs the training of a digit classifier, so that the first look at the UI is not empty.

Curves come from formulas with fixed seeds and runs have fixed ids: a second demo finds its runs and leaves them alone.
Everything goes through the released `matyan-client` (extra `demo`), as any training script's data does.
"""

from __future__ import annotations

import hashlib
import math
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from matyan.errors import ConfigurationError, UnavailableError

EPOCHS: Final = 25
STEPS_PER_EPOCH: Final = 20
PACE_SECONDS: Final = 0.04
"""How long an epoch takes at least, so that time axes and live updates show something."""
DIGITS: Final = 10
Floats = npt.NDArray[np.float64]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one run; they decide its curves."""

    experiment: str
    name: str
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (128,)
    dropout: float = 0.0
    weight_decay: float = 0.0
    tags: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The same 32 hex digits every time."""
        return hashlib.sha256(f"matyan demo: {self.experiment}/{self.name}".encode()).hexdigest()[:32]


class Epoch(msgspec.Struct, frozen=True):
    """What one epoch measured; `losses`, `rates` and `gradients` have one value per step."""

    number: int
    losses: Floats
    rates: Floats
    gradients: Floats
    train_accuracy: float
    val_loss: float
    val_accuracy: float


PLANS: Final[tuple[Plan, ...]] = (
    *(
        Plan(experiment="learning-rate", name=f"lr={rate:g}", learning_rate=rate, tags=tags)
        for rate, tags in (
            (1e-4, ()),
            (3e-4, ()),
            (1e-3, ("baseline",)),
            (3e-3, ()),
            (1e-2, ("candidate",)),
            (0.3, ("diverged",)),
        )
    ),
    Plan(experiment="architecture", name="hidden=32", hidden=(32,)),
    Plan(experiment="architecture", name="hidden=512", hidden=(512,)),
    Plan(experiment="architecture", name="hidden=256x256", hidden=(256, 256), tags=("candidate",)),
    Plan(experiment="regularisation", name="dropout=0.1", hidden=(512,), dropout=0.1),
    Plan(experiment="regularisation", name="dropout=0.3", hidden=(512,), dropout=0.3, tags=("candidate", "best")),
    Plan(experiment="regularisation", name="weight decay", hidden=(512,), weight_decay=1e-2),
)


def log_demo(url: str, *, pace_seconds: float = PACE_SECONDS) -> int:
    """Log the runs of PLANS to the tracker at `url` and return how many were new.

    Raises:
        ConfigurationError: matyan-client is not installed.
        UnavailableError: no tracker answers at `url`.
    """
    try:
        from loguru import logger  # noqa: PLC0415 - an extra: only the demo needs it
        from matyan_client import Repo  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"the demo logs through matyan-client ({error.name} is missing): pip install 'matyan-tracker[demo]'"
        ) from error
    logger.disable("matyan_client")  # its debug lines would end in the terminal log of the demo's runs
    _check_ready(url)
    repository = Repo(url)
    new = 0
    for plan in PLANS:
        if _is_finished(repository, plan):
            print(f"{plan.experiment}/{plan.name} is there already")  # noqa: T201 - a command's output
            continue
        _train(plan, url, pace_seconds)
        new += 1
    repository.close()
    return new


def _is_finished(repository: Any, plan: Plan) -> bool:
    """A demo that was interrupted left a run unfinished: it is trained again, over what is there."""
    run = repository.get_run(plan.run_id)
    return run is not None and not run.props.get("active", True)


def _check_ready(url: str) -> None:
    """Ask first: the client itself would wait 15 s for each run."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready/", timeout=5):  # noqa: S310 - the user's own tracker
            return
    except OSError as error:
        raise UnavailableError(f"no tracker is ready at {url} ({error}): start one with `matyan up`") from error


def simulate(plan: Plan) -> Iterator[Epoch]:
    """Yield the epochs of a training with the settings of `plan`: the same numbers every time."""
    noise = np.random.default_rng(int(plan.run_id[:8], 16))
    capacity = math.log2(sum(plan.hidden)) / 9
    speed = 0.7 * math.exp(-((math.log10(plan.learning_rate) + 2.3) ** 2)) + 0.03
    floor = (
        0.05
        + 0.12 * (1 - capacity) ** 2
        + 0.25 * plan.dropout**2
        + max(0.0, math.log10(plan.learning_rate) + 2.3) * 0.1
    )
    overfit = 0.010 * capacity * (1 - 2.2 * plan.dropout) * (0.5 if plan.weight_decay else 1.0)
    diverges_at = 4 if plan.learning_rate > 0.1 else None  # noqa: PLR2004 - where the story says so
    for number in range(EPOCHS):
        progress = number + np.arange(STEPS_PER_EPOCH) / STEPS_PER_EPOCH
        clean = floor + (2.3 - floor) * np.exp(-speed * progress)
        losses = clean * np.exp(noise.normal(0.0, 0.07, STEPS_PER_EPOCH))
        if diverges_at is not None and number >= diverges_at:
            losses = np.where(progress < diverges_at + 1.5, losses * 4 ** (progress - diverges_at) ** 2, math.nan)
        val_loss = float(losses[-1] * 1.04 + overfit * number * noise.normal(1.0, 0.08))
        warmup = np.minimum(1.0, (progress + 0.05) / 2)
        yield Epoch(
            number=number,
            losses=losses,
            rates=plan.learning_rate * warmup * 0.5 * (1 + np.cos(np.pi * progress / EPOCHS)),
            gradients=losses * 1.8 * np.exp(noise.normal(0.0, 0.2, STEPS_PER_EPOCH)) + 0.05,
            train_accuracy=_accuracy(float(np.mean(losses))),
            val_loss=val_loss,
            val_accuracy=_accuracy(val_loss),
        )


def _accuracy(loss: float) -> float:
    """Turn a loss into an accuracy; a diverged model guesses one of ten digits."""
    return max(1 / DIGITS, math.exp(-loss)) if math.isfinite(loss) else 1 / DIGITS


def _train(plan: Plan, url: str, pace_seconds: float) -> None:
    from matyan_client import Run  # noqa: PLC0415

    run = Run(run_hash=plan.run_id, repo=url, experiment=plan.experiment, system_tracking_interval=0.25)
    run.name = plan.name
    _log_settings(run, plan)
    print(f"training {plan.experiment}/{plan.name} for {EPOCHS} epochs")  # noqa: T201 - captured as terminal log
    for epoch in simulate(plan):
        started = time.monotonic()
        _log_epoch(run, epoch)
        if epoch.number % 6 == 0:
            _log_objects(run, plan, epoch)
            print(  # noqa: T201
                f"  epoch {epoch.number:2d}  loss {epoch.losses[-1]:.3f}  val {epoch.val_loss:.3f}"
                f"  accuracy {epoch.val_accuracy:.1%}"
            )
        time.sleep(max(0.0, pace_seconds - (time.monotonic() - started)))
    run.close()


def _log_settings(run: Any, plan: Plan) -> None:
    run.description = f"A digit classifier with hidden layers {plan.hidden}, part of the {plan.experiment} study"
    run["hparams"] = {
        "learning_rate": plan.learning_rate,
        "batch_size": 64,
        "epochs": EPOCHS,
        "optimizer": {"name": "adamw", "betas": [0.9, 0.999], "weight_decay": plan.weight_decay},
    }
    run["model"] = {"kind": "mlp", "hidden": list(plan.hidden), "dropout": plan.dropout, "activation": "relu"}
    run["dataset"] = {"name": "digits", "classes": DIGITS, "train": 1437, "val": 360}
    for tag in plan.tags:
        run.add_tag(tag)
    run.log_info("data loaded", train=1437, val=360)


def _log_epoch(run: Any, epoch: Epoch) -> None:
    train, val = {"subset": "train"}, {"subset": "val"}
    first = epoch.number * STEPS_PER_EPOCH
    for offset in range(STEPS_PER_EPOCH):
        position = {"step": first + offset, "epoch": epoch.number}
        run.track(float(epoch.losses[offset]), name="loss", context=train, **position)
        run.track(float(epoch.gradients[offset]), name="gradient_norm", context=train, **position)
        run.track(float(epoch.rates[offset]), name="learning_rate", **position)
    position = {"step": first + STEPS_PER_EPOCH - 1, "epoch": epoch.number}
    run.track(epoch.val_loss, name="loss", context=val, **position)
    run.track(epoch.train_accuracy, name="accuracy", context=train, **position)
    run.track(epoch.val_accuracy, name="accuracy", context=val, **position)
    if not math.isfinite(epoch.val_loss):
        run.log_warning("the loss is not finite", epoch=epoch.number, learning_rate=float(epoch.rates[-1]))


def _log_objects(run: Any, plan: Plan, epoch: Epoch) -> None:
    from matyan_client import Distribution, Figure, Image, Text  # noqa: PLC0415

    noise = np.random.default_rng(epoch.number)
    position = {"step": (epoch.number + 1) * STEPS_PER_EPOCH - 1, "epoch": epoch.number}
    run.track(Image(draw_filters(epoch), caption=f"filters after epoch {epoch.number}"), name="filters", **position)
    run.track(Text(_predictions(noise, epoch.val_accuracy)), name="predictions", **position)
    run.track(Figure(_confusion(epoch)), name="confusion", **position)
    for layer, width in enumerate((*plan.hidden, DIGITS)):
        weights = noise.normal(0.0, (1 + 0.05 * epoch.number) / math.sqrt(width), 2000)
        run.track(Distribution(weights, bin_count=40), name="weights", context={"layer": layer}, **position)


def draw_filters(epoch: Epoch) -> npt.NDArray[np.uint8]:
    """Draw 4 x 8 first-layer filters, uint8 (h, w, 3): noise that turns into edges as the accuracy grows."""
    noise = np.random.default_rng(7)
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    rows = []
    for row in range(4):
        cells = []
        for column in range(8):
            angle = math.pi * column / 8
            wave = np.cos((3 + 2 * row) * (x * math.cos(angle) + y * math.sin(angle))) * np.exp(-2 * (x**2 + y**2))
            mixed = epoch.val_accuracy * wave + (1 - epoch.val_accuracy) * noise.normal(0.0, 0.5, x.shape)
            cells.append(np.pad(np.clip((mixed + 1) / 2, 0, 1), 2, constant_values=1.0))
        rows.append(np.hstack(cells))
    grey = np.vstack(rows)
    return np.stack([grey * 235, grey * 240, grey * 255], axis=2).astype(np.uint8)


def _predictions(noise: np.random.Generator, accuracy: float) -> str:
    lines: Sequence[str] = [
        f"sample {index:3d}: digit {digit}, predicted {digit if noise.random() < accuracy else (digit + 3) % DIGITS}"
        for index, digit in enumerate(noise.integers(0, DIGITS, 12))
    ]
    return "\n".join(lines)


def _confusion(epoch: Epoch) -> dict[str, Any]:
    """Return a plotly figure: 36 validation samples of each digit, by what was predicted."""
    wrong = 36 * (1 - epoch.val_accuracy) / (DIGITS - 1)
    matrix = np.full((DIGITS, DIGITS), wrong)
    np.fill_diagonal(matrix, 36 * epoch.val_accuracy)
    return {
        "data": [{"type": "heatmap", "z": matrix.round(1).tolist(), "colorscale": "Blues"}],
        "layout": {
            "title": {"text": f"Confusion after epoch {epoch.number}"},
            "xaxis": {"title": {"text": "predicted"}},
            "yaxis": {"title": {"text": "digit"}, "autorange": "reversed"},
        },
    }
