"""Model files of CTranslate2, which faster-whisper reads: model.bin, all numbers little-endian.

The version of the layout, the kind of model and its revision; the variables, each with its name,
shape, type and bytes; and second names of variables.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from omni_avsr.convert.weights import NUMBERS, Weights, naming
from omni_avsr.errors import InputError

VERSION = 6  # of the layout, since CTranslate2 2.0
OLDEST, NEWEST = 1, 64  # what can be a version at all, to tell the layout by its first number
TYPES = (
    torch.float32,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.float16,
    torch.bfloat16,
)
QUANTISED = (torch.int8, torch.int16)
SCALE = "_scale"  # after the name of a quantised weight: what its values were multiplied with
# How a number is packed, and how many bytes it has
BYTE = ("<B", 1)
SHORT = ("<H", 2)
WORD = ("<I", 4)


@dataclass(frozen=True)
class ModelFile:
    """The content of a model.bin; quantised weights are numbers again."""

    kind: str  # of model, such as WhisperSpec
    weights: Weights
    settings: dict[str, int]  # the variables that are one whole number
    aliases: dict[str, str]  # second names of weights, and their first


def is_ctranslate2(file: Path) -> bool:
    """Whether a file begins as CTranslate2's do: with a small number of four bytes."""
    try:
        with file.open("rb") as opened:
            start = opened.read(4)
    except OSError as error:
        raise InputError(f"{file} cannot be read as a file: {error.strerror}") from None
    return len(start) == 4 and OLDEST <= int.from_bytes(start, "little") <= NEWEST


def read_ctranslate2(file: Path) -> ModelFile:
    """The content of a model.bin. Memory is taken for bytes only that the file really has."""
    with naming(file), file.open("rb") as opened:
        reader = _Reader(opened, file.stat().st_size)
        version = reader.number(WORD)
        if version != VERSION:
            raise InputError(
                f"version {version} of CTranslate2's layout, {VERSION} expected: "
                "convert the model again with a newer CTranslate2"
            )
        kind = reader.text()
        reader.number(WORD)  # the revision
        variables = _read_variables(reader)
        aliases = _read_aliases(reader, variables)
        if reader.left:
            raise InputError(f"{reader.left} bytes are left over at the end")
        weights, settings = _sorted_out(variables)
    return ModelFile(kind, weights, settings, aliases)


class _Reader:
    """Reads a file from its start, and refuses what is longer than the file."""

    def __init__(self, file: BinaryIO, size: int):
        self.file = file
        self.left = size

    def bytes(self, count: int) -> bytearray:
        if count > self.left:
            raise InputError(f"cut off or damaged: {count} more bytes expected, it has {self.left}")
        self.left -= count
        return bytearray(self.file.read(count))

    def number(self, packed: tuple[str, int]) -> int:
        layout, size = packed
        (value,) = struct.unpack(layout, self.bytes(size))
        return value

    def text(self) -> str:
        try:
            return self.bytes(self.number(SHORT)).rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise InputError("damaged: a name with bytes that are no letters") from None


def _read_variables(reader: _Reader) -> Weights:
    variables: Weights = {}
    for _ in range(reader.number(WORD)):
        name = reader.text()
        if name in variables:
            raise InputError(f"damaged: {name} is there twice")
        variables[name] = _read_variable(reader, name)
    return variables


def _read_variable(reader: _Reader, name: str) -> Tensor:
    shape = [reader.number(WORD) for _ in range(reader.number(BYTE))]
    code = reader.number(BYTE)
    if code >= len(TYPES):
        raise InputError(f"{name} has the unknown type {code}")
    dtype = TYPES[code]
    size = reader.number(WORD)
    expected = math.prod(shape) * dtype.itemsize
    if size != expected or not size:
        raise InputError(f"{name} of shape {tuple(shape)} has {size} bytes, {expected} expected")
    return torch.frombuffer(reader.bytes(size), dtype=dtype).reshape(shape)


def _read_aliases(reader: _Reader, variables: Weights) -> dict[str, str]:
    aliases = {}
    for _ in range(reader.number(WORD)):
        alias = reader.text()
        name = reader.text()
        if name not in variables:
            raise InputError(f"{alias} is a second name of {name}, which is not there")
        if not alias.endswith(SCALE):
            aliases[alias] = name
    return aliases


def _sorted_out(variables: Weights) -> tuple[Weights, dict[str, int]]:
    """The weights, and the settings among the variables."""
    weights = {}
    settings = {}
    for name, variable in variables.items():
        if name.endswith(SCALE):
            continue  # taken with its weight
        if variable.dtype in NUMBERS:
            weights[name] = variable
        elif not variable.ndim:
            settings[name] = int(variable)
        else:
            weights[name] = _dequantised(name, variable, variables.get(name + SCALE))
    return weights, settings


def _dequantised(name: str, weight: Tensor, scale: Tensor | None) -> Tensor:
    """A weight (rows, ...), of which each row or all were multiplied with a scale and rounded."""
    if weight.dtype not in QUANTISED or scale is None:
        raise InputError(
            f"{name} is quantised in a way that cannot be undone (not int8 or int16 with a scale): "
            "convert the model again without quantisation"
        )
    if scale.dtype != torch.float32 or scale.numel() not in (1, len(weight)):
        given = f"{str(scale.dtype).removeprefix('torch.')} of shape {tuple(scale.shape)}"
        raise InputError(f"{name}{SCALE} is {given}, one float32 per row or for all expected")
    one_per_row = [-1] + [1] * (weight.ndim - 1)
    return weight.float() / scale.reshape(one_per_row)
