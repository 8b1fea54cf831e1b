"""How options are declared, and how their values are turned into the declared types."""

import math
import os
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omni_avsr.errors import InputError


@dataclass(frozen=True)
class Bounds:
    """Between which numbers a value must lie; with `above` the lower one itself is excluded."""

    low: float
    high: float = math.inf
    above: bool = False

    def __str__(self) -> str:
        if self.above:
            most = "" if self.high == math.inf else f" and at most {self.high}"
            return f"more than {self.low}{most}"
        return f"{self.low} or more" if self.high == math.inf else f"from {self.low} to {self.high}"

    def hold(self, value: float) -> bool:
        """Whether the value lies between them; NaN and infinity never do."""
        is_high_enough = value > self.low if self.above else value >= self.low
        return is_high_enough and value <= self.high and math.isfinite(value)


COUNT = Bounds(1)
WHOLE = Bounds(0)
SEED = Bounds(0, 2**32 - 1)
POSITIVE = Bounds(0, above=True)
SHARE = Bounds(0, 1)
DECIBELS = Bounds(-100, 100)


def shard_problem(shard: str) -> str | None:
    """What is wrong with a part of the form 3/8, if something is."""
    index, _, count = shard.partition("/")
    numbers = index.isdecimal() and count.isdecimal()
    if numbers and 1 <= int(index) <= int(count):
        return None
    return f"shard {shard!r} is not of the form 3/8"


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    bounds: Bounds | None = None,
    must_exist: bool = False,
) -> Any:
    """A field that is also a command-line option.

    One of numbers has bounds. A path that must exist is looked for before the command begins.
    """
    facts = {"help": help, "choices": choices, "bounds": bounds, "must_exist": must_exist}
    return field(default=default, metadata=facts)


def flag(own: Field) -> str:
    """A field as it is typed; names that Python reserves, such as from, end with _ in it."""
    return "--" + own.name.removesuffix("_").replace("_", "-")


def required(hint: object) -> Any:
    """The declared type without its None."""
    if get_origin(hint) is not UnionType:
        return hint
    (kind,) = (kind for kind in get_args(hint) if kind is not NoneType)
    return kind


def parsed(value: Any, hint: object) -> Any:
    """The value as the declared type: 4,16 becomes (4, 16), a string a Path or a Task."""
    kind = required(hint)
    if value is None and kind is not hint:
        return None
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(parsed(item, get_args(kind)[0]) for item in items)
    if isinstance(value, bool) != (kind is bool):
        raise ValueError("the word False is not a truth value, nor is True a number")
    if isinstance(value, float) and kind is int:
        raise ValueError("a fraction is not a whole number")
    if value is None:
        raise ValueError("a value is needed")
    return kind(value.strip() if isinstance(value, str) else value)


def described(hint: object) -> str:
    """The declared type in words, for an error message."""
    kind = required(hint)
    if get_origin(kind) is tuple:
        examples = {int: "whole numbers such as 4,16", float: "numbers such as 1,1.5,1"}
        return f"a list of {examples.get(get_args(kind)[0], 'words such as asr,vsr')}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")


@dataclass(frozen=True)
class Settings:
    """Turns values into the declared types and reports everything that is wrong at once."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        problems = []
        for own in fields(self):
            value = getattr(self, own.name)
            try:
                object.__setattr__(self, own.name, parsed(value, hints[own.name]))
            except InputError as error:
                problems.append(str(error))
            except (ValueError, TypeError):
                problems.append(f"{own.name} {value!r} is not {described(hints[own.name])}")
        problems = problems or [*self._refused_values(), *self.problems()]
        if problems:
            raise InputError("; ".join(problems))

    def _refused_values(self) -> Iterator[str]:
        """What is none of an option's choices, or not between its bounds."""
        for own in fields(self):
            choices, bounds = own.metadata["choices"], own.metadata["bounds"]
            value = getattr(self, own.name)
            is_list = isinstance(value, tuple)
            name = own.name.removesuffix("s") if is_list else own.name
            for item in value if is_list else (value,):
                if item is None:
                    continue
                if choices and item not in choices:
                    yield f"unknown {name} {item!r}; available: {', '.join(choices)}"
                if bounds and not bounds.hold(item):
                    yield f"{own.name} must be {bounds}, not {item}"

    def missing_files(self) -> Iterator[str]:
        """Files and folders that are given but do not exist."""
        for own in fields(self):
            path = getattr(self, own.name)
            if not (own.metadata["must_exist"] and isinstance(path, Path)):
                continue
            if not os.path.exists(path):  # Path.exists raises if the path is too long
                yield f"{own.name} {path} does not exist"

    def problems(self) -> Iterator[str]:
        """What contradicts itself."""
        yield from ()
