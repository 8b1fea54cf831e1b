"""What a training run leaves, to be compared with another."""

import csv
from pathlib import Path

import torch
from safetensors.torch import load_file

OF_TIME = ("clips/s", "hours/hour")


def outcome(folder: Path):
    """What training left: weights and metrics."""
    weights = load_file(folder / "model" / "model.safetensors")
    for file in (folder / "model" / "adapters").glob("*/*.safetensors"):
        weights |= {f"{file.parent.name}.{name}": w for name, w in load_file(file).items()}
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return weights, [{k: v for k, v in row.items() if k not in OF_TIME} for row in rows]


def assert_same(one: Path, other: Path):
    (weights, metrics), (others, other_metrics) = outcome(one), outcome(other)
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    assert metrics == other_metrics
