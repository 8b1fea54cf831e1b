"""Training runs that are interrupted, and what a run leaves, to be compared with another."""

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omni_avsr.settings import TrainSettings
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.fit import fit
from omni_avsr.train.step import Training

TRAINING_STEP = Training.training_step
OF_TIME = ("clips/s", "hours/hour")  # metrics that are different in every run


@dataclass(frozen=True)
class Outcome:
    """What training has left."""

    weights: dict[str, Tensor]  # of the projectors and the adapters
    metrics: list[dict[str, str]]  # the rows of metrics.csv


def outcome(run: Path) -> Outcome:
    """What training has left in a run's folder."""
    metrics = read_metrics(run)
    for row in metrics:
        for name in OF_TIME:
            row.pop(name, None)
    return Outcome(weights_of_model(run), metrics)


def weights_of_model(run: Path) -> dict[str, Tensor]:
    """What is trained in the model of a run."""
    weights = load_file(run / "model" / "model.safetensors")
    for file in (run / "model" / "adapters").glob("*/*.safetensors"):
        for name, weight in load_file(file).items():
            weights[f"{file.parent.name}.{name}"] = weight
    return weights


def read_metrics(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same(one: Path, other: Path) -> None:
    """Fails unless two runs have left the same weights, bit by bit, and the same metrics."""
    first, second = outcome(one), outcome(other)
    assert_same_weights(first.weights, second.weights)
    assert first.metrics == second.metrics


def assert_same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Fails unless the weights are the same, bit by bit, and names those that are not."""
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


def as_json(settings: TrainSettings) -> str:
    """The settings as an argument of a script."""
    return json.dumps(asdict(settings), default=str)


def noisy_step(self: Training, batch: TrainingBatch, step: int) -> Tensor:
    """A training step that draws from torch's generator, as dropout does."""
    loss = TRAINING_STEP(self, batch, step)
    return loss * (1 + torch.rand(()))


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Does something in the middle of a training step."""
    inner = Training.training_step

    def training_step(self: Training, batch: TrainingBatch, number: int) -> Tensor:
        if number == step:
            act()
        return inner(self, batch, number)

    monkeypatch.setattr(Training, "training_step", training_step)


def fit_until_sigkill(settings: TrainSettings, step: int) -> None:
    """Trains with noisy steps, of which the process does not survive this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "training_step", noisy_step)
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
        fit(settings)


def fit_until_step(settings: TrainSettings, step: int, reached: Event) -> None:
    """Trains until this step, and waits there to be killed."""

    def wait() -> None:
        reached.set()
        time.sleep(600)

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, wait)
        fit(settings)
