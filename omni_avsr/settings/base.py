"""How options are declared, and how their values are turned into the declared types."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omni_avsr.errors import InputError


def option(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field that is also a command-line option."""
    return field(default=default, metadata={"help": help, "choices": choices})


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
        problems = problems or [*self._unknown_choices(), *self.problems()]
        if problems:
            raise InputError("; ".join(problems))

    def _unknown_choices(self) -> Iterator[str]:
        for own in fields(self):
            choices = own.metadata["choices"]
            value = getattr(self, own.name)
            given = value if isinstance(value, tuple) else (value,)
            for item in given:
                if choices and item is not None and item not in choices:
                    name = own.name.removesuffix("s") if isinstance(value, tuple) else own.name
                    yield f"unknown {name} {item!r}; available: {', '.join(choices)}"

    def problems(self) -> Iterator[str]:
        """What contradicts itself."""
        yield from ()
