"""Weight files of other projects: read safely, and copied into modules under new names.

Nothing in a file is executed. Torch's restricted loader reads it, and the few classes that fairseq
saves next to the weights become inert objects.
"""

import json
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from omni_avsr.errors import InputError
from omni_avsr.tasks import Row

Weights = dict[str, Tensor]

INERT_CLASSES = (
    "fairseq.data.dictionary.Dictionary",
    "argparse.Namespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
)


class Renamed(NamedTuple):
    """The name of a weight in the file and in our module."""

    old: str
    new: str | None  # None if the module has no use for it


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file."""

    weights: Weights
    extra: Row = field(default_factory=dict)  # whatever else fairseq saved


class _Inert:
    """Takes the place of a class of fairseq's: accepts any arguments and does nothing."""

    def __init__(self, *_: object):
        pass


def read_weights(file: Path) -> WeightFile:
    """The weights in a .safetensors or torch file."""
    is_safetensors = file.suffix == ".safetensors"
    content = _read_safetensors(file) if is_safetensors else _read_torch(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, named weights expected")
    for key, prefix in (("model", ""), ("state_dict", "model.")):
        inner = content.get(key)
        if isinstance(inner, dict):
            weights = {name.removeprefix(prefix): weight for name, weight in inner.items()}
            extra = {name: value for name, value in content.items() if name != key}
            return WeightFile(weights, extra)
    return WeightFile(content)


def _read_safetensors(file: Path) -> Weights:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} is not a checkpoint that safetensors can read: {error}") from None


def _read_torch(file: Path) -> object:
    inert: list[Any] = [(_Inert, name) for name in INERT_CLASSES]
    try:
        with torch.serialization.safe_globals(inert):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        if forbidden is None:
            raise InputError(f"{file} is not a checkpoint that torch can read") from None
        raise InputError(
            f"{file} is refused: it uses {forbidden[1]}, and only weights are loaded; "
            "save its state dict in a file of its own"
        ) from None
    except (EOFError, LookupError, RuntimeError) as error:
        raise InputError(f"{file} is not a checkpoint that torch can read: {error}") from None


def require(weights: Weights, names: Iterable[str]) -> None:
    """Raises InputError if any of these weights is missing."""
    missing = [name for name in names if name not in weights]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not found: "
            "the file holds another kind of model, or only a part of one"
        )


def count(weights: Weights, pattern: str) -> int:
    """How many different values the group of a pattern has at the start of the names."""
    values = set()
    for name in weights:
        match = re.match(pattern, name)
        if match:
            values.add(match[1])
    return len(values)


def read_config(source: Path) -> Row:
    """A model's config: a JSON file of fairseq's, or a converted folder."""
    file = source / "config.json" if source.is_dir() else source
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not a config in JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a config: a JSON object expected")
    return content.get("model", content)


def refuse_overwrite(out: Path) -> None:
    """Raises InputError unless the folder is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: give another one")


@torch.no_grad()
def fill(module: nn.Module, weights: Weights, names: list[Renamed]) -> None:
    """Copies all weights into a module under their new names.

    Raises InputError if a weight has no place, is missing, or has another shape.
    """
    places = _places(module)
    problems = _misfits(places, weights, names)
    if problems:
        raise InputError(f"{len(problems)} keys do not fit: {'; '.join(problems)}")
    for old, new in names:
        if new is not None:
            places[new].copy_(weights[old])


def _places(module: nn.Module) -> Weights:
    """The module's weights, by their names without those that PEFT inserts."""
    places = {}
    for name, weight in module.state_dict().items():
        name = name.replace("base_model.model.", "", 1).replace(".base_layer.", ".")
        places[name] = weight
    return places


def _misfits(places: Weights, weights: Weights, names: list[Renamed]) -> list[str]:
    problems = []
    for old, new in names:
        if new is None:
            continue
        given = tuple(weights[old].shape)
        if new not in places:
            problems.append(f"{old} has no place")
        elif given != tuple(places[new].shape):
            problems.append(f"{old} has shape {given}, {tuple(places[new].shape)} expected")
    filled = {new for _, new in names}
    problems += [f"{name} is missing" for name in places if name not in filled]
    return problems
