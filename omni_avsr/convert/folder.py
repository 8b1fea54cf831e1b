"""The folder that a conversion writes: filled from a weight file, and complete or absent."""

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn

from omni_avsr.convert.weights import Weights, listed
from omni_avsr.errors import InputError


class Renamed(NamedTuple):
    """The name of a weight in the file and in our module."""

    old: str
    new: str | None  # None if the module has no use for it


def refuse_overwrite(out: Path) -> None:
    """Raises InputError unless the folder is new or empty, and not the current one."""
    if out.resolve() == Path.cwd():
        raise InputError(f"{out} is the current folder, which would be replaced: give another one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: give another one")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside, which becomes `out` once everything is written into it."""
    out = out.resolve()
    part = out.with_name(f"{out.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None
    try:
        yield part
        if out.exists():
            out.rmdir()  # it is empty
        part.rename(out)
    except SafetensorError as error:
        raise InputError(f"{out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


@torch.no_grad()
def fill(
    module: nn.Module,
    weights: Weights,
    names: list[Renamed],
    name_in_file: Callable[[str], str],
) -> None:
    """Copies all weights into a module under their new names.

    Raises InputError if a weight has no place, is missing, or has another shape. `name_in_file`
    turns a name of ours into what the file should have called it.
    """
    places = _places(module)
    problems = _misfits(places, weights, names)
    filled = {new for _, new in names}
    problems += [f"{name_in_file(name)} is missing" for name in places if name not in filled]
    if problems:
        raise InputError(f"{len(problems)} keys do not fit: {listed(problems)}")
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
    """What is wrong with the weights that are there."""
    problems = []
    claims = Counter(new for _, new in names)
    for old, new in names:
        if new is None:
            continue
        given = tuple(weights[old].shape)
        if new not in places:
            problems.append(f"{old} has no place")
        elif claims[new] > 1:
            problems.append(f"{old} has the place of another key too")
        elif given != tuple(places[new].shape):
            problems.append(f"{old} has shape {given}, {tuple(places[new].shape)} expected")
    return problems
