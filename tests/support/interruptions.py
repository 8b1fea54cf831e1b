"""Ends work in its middle, as a SIGKILL does, but inside of the test's process."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")


class Killed(BaseException):
    """Stands for a SIGKILL: no handler for exceptions catches it."""


def kill(*_: object) -> NoReturn:
    """Ends the work."""
    raise Killed


def killed_after(calls: int, function: Callable[..., T]) -> Callable[..., T]:
    """The function, which ends the work when it is called once more than so many times."""
    done = 0

    def counted(*given: object, **options: object) -> T:
        nonlocal done
        if done == calls:
            raise Killed
        done += 1
        return function(*given, **options)

    return counted
