"""Weight files of other projects, read safely; what is no weight is refused.

Nothing in a file is executed. Torch's restricted loader reads it, and the few classes that fairseq
saves next to the weights become inert objects.
"""

import json
import pickle
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omni_avsr.errors import InputError
from omni_avsr.tasks import Row

Weights = dict[str, Tensor]

NUMBERS = (torch.bfloat16, torch.float16, torch.float32)
COUNTER = "num_batches_tracked"  # of a BatchNorm: the only weights that are whole numbers
COUNTS = (torch.int64, torch.int32)
NESTED = (  # where weights are, and what precedes a name
    ("model", ""),
    ("state_dict", "model."),
    ("model_state_dict", ""),
)
LISTED = 8  # problems that a message names
INERT_CLASSES = (
    "fairseq.data.dictionary.Dictionary",
    "argparse.Namespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
)


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
    """The weights in a file of safetensors' or torch's, which its content tells, not its name."""
    content = _read_safetensors(file) if _is_safetensors(file) else _read_torch(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, named weights expected")
    found = _without_nesting({str(name): value for name, value in content.items()})
    if not found.weights:
        raise InputError(f"{file} holds no weights")
    with naming(file):
        refuse_unusable(found.weights)
    return found


def refuse_unusable(weights: Weights) -> None:
    """Raises InputError about what cannot be a weight, wherever it belongs."""
    problems = []
    for name, weight in weights.items():
        problem = _problem(name, weight)
        if problem:
            problems.append(f"{name} {problem}")
    if problems:
        places = ", ".join(f"'{key}'" for key, _ in NESTED)
        raise InputError(
            f"{listed(problems)}; expected are named weights, "
            f"or a dictionary of them as one of {places}"
        )


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins as safetensors' do: with a length of 8 bytes, and then JSON."""
    try:
        with file.open("rb") as opened:
            return opened.read(9)[8:] == b"{"
    except OSError as error:
        raise InputError(f"{file} cannot be read as a file: {error.strerror}") from None


def _without_nesting(content: Row) -> WeightFile:
    for key, prefix in NESTED:
        inner = content.get(key)
        if isinstance(inner, dict):
            weights = {str(name).removeprefix(prefix): value for name, value in inner.items()}
            extra = {name: value for name, value in content.items() if name != key}
            return WeightFile(weights, extra)
    return WeightFile(content)


def _problem(name: str, weight: object) -> str | None:
    """Why something cannot be a weight."""
    if not isinstance(weight, Tensor):
        return f"is of type {type(weight).__name__}, not a tensor"
    if weight.layout != torch.strided or weight.is_meta or weight.is_nested:
        return "is a tensor without plain values"
    is_count = name.endswith(COUNTER) and weight.dtype in COUNTS
    if weight.dtype not in NUMBERS and not is_count:
        dtypes = ", ".join(map(_dtype, NUMBERS))
        return f"is of type {_dtype(weight.dtype)}, one of {dtypes} expected"
    if not weight.numel():
        return f"of shape {tuple(weight.shape)} is empty"
    if weight.nbytes > weight.untyped_storage().nbytes():
        return f"of shape {tuple(weight.shape)} repeats its values"
    if not weight.isfinite().all():
        return "has values that are NaN or infinite"
    return None


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def listed(problems: Sequence[str]) -> str:
    """The first of the problems, and how many more there are."""
    text = "; ".join(problems[:LISTED])
    more = len(problems) - LISTED
    return f"{text}; and {more} more" if more > 0 else text


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Names the file in an InputError about its content."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _read_safetensors(file: Path) -> Weights:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} is not a checkpoint that safetensors can read: {error}") from None


def _read_torch(file: Path) -> object:
    inert: list[Any] = [(_Inert, name) for name in INERT_CLASSES]
    try:
        with torch.serialization.safe_globals(inert), file.open("rb") as opened:
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        if forbidden is None:
            raise InputError(f"{file} is not a checkpoint that torch can read") from None
        raise InputError(
            f"{file} is refused: it uses {forbidden[1]}, and only weights are loaded; "
            "save its state dict in a file of its own"
        ) from None
    except (EOFError, LookupError, OSError, RuntimeError) as error:
        raise InputError(f"{file} is not a checkpoint that torch can read: {error}") from None


def require(weights: Container[str], names: Iterable[str]) -> None:
    """Raises InputError if any of these weights is missing."""
    missing = [name for name in names if name not in weights]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not found: "
            "the file holds another kind of model, or only a part of one"
        )


def shape_of(weights: Weights, name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a weight, which must be there and have so many dimensions."""
    require(weights, [name])
    shape = tuple(weights[name].shape)
    if len(shape) != dimensions:
        raise InputError(f"{name} has shape {shape}, {dimensions} dimensions expected")
    return shape


def count(names: Iterable[str], pattern: str) -> int:
    """How many different values the group of a pattern has at the start of the names."""
    values = set()
    for name in names:
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
    config = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(config, dict):
        raise InputError(f"{file} is not a config: a JSON object expected")
    return config
